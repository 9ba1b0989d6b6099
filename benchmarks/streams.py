"""Predicts long folders and tables: memory as they get longer, speed beside that of reading alone.

    python -m benchmarks.streams --structures=20000 --json=FILE

A folder of CIFs and tables of the same crystals (CSV with CIFs in a column, JSON lines, extended
XYZ) go through jaxmat predict, by the installed command. Given are the megabytes of its process and
of those that read, at a quarter, half and all of the crystals, and the seconds beside those of
reading alone. Then the folder's prediction is killed half-way and gone on with.

Exit code 1 where memory grows by more than a tenth in the second half, a process outlives the one
that was killed, the file is not that of the prediction that was not killed, or predicting the
folder takes more than 1.5 times as long as reading it. Linux only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.prediction import random_bundle
from benchmarks.reading import read_all, write_files
from jaxmat.bundles.bundle import save_bundle
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.reading import read
from jaxmat.data.tables import read_table

MOST_GROWTH, MOST_OF_READING = 1.1, 1.5
FOLDER = "cifs"
_SECONDS = 0.25  # between two looks at a process


def main(argv: list[str]) -> int:
    """Runs the benchmark."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = values.model or _save_random_model(place)
        (place / FOLDER).mkdir()
        write_files(place / FOLDER, values.structures)
        write_tables(place, place / FOLDER)
        found: dict[str, Any] = {"structures": values.structures, "cores": os.cpu_count()}
        for source in values.sources:
            seconds = read_all(str(place / source), workers=os.cpu_count() or 1)
            found[source] = {"seconds_of_reading": seconds}
            run = Run(model, place / source, place / f"{source}.out.csv")
            found[source] |= run.watch(values.structures)
            found[source]["ratio"] = found[source]["seconds"] / seconds
            print(source, json.dumps(found[source]), flush=True)
        found["killed"] = kill_and_go_on(model, place, values.sources[0], values.structures)
    print(json.dumps(found, indent=1))
    if values.json:
        Path(values.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    grows = any(_grows(found[source]["megabytes"]) for source in values.sources)
    slow = FOLDER in values.sources and found[FOLDER]["ratio"] > MOST_OF_READING
    return int(grows or slow or not all(found["killed"].values()))


def _grows(megabytes: Mapping[int, Mapping[str, float]]) -> bool:
    _, half, whole = megabytes.values()
    return any(whole[who] > MOST_GROWTH * half[who] for who in half)


class Run:
    """A prediction by the installed command."""

    def __init__(self, model: str | Path, source: Path, output: Path, *more: str) -> None:
        """Starts it."""
        self.output = output
        program = str(Path(sys.executable).with_name("jaxmat"))
        command = [program, "predict", f"--model={model}"]
        command += [f"--input={source}", f"--output={output}", *more]
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def rows(self) -> int:
        """Returns how many rows are written so far."""
        for file in self.output.parent.glob(f".{self.output.name}.*.partial.json"):
            with suppress(OSError, ValueError):
                return int(json.loads(file.read_text(encoding="utf-8"))["rows"])
        return 0

    def watch(self, structures: int) -> dict[str, Any]:
        """Returns its seconds, and the most megabytes in each stretch, when it is done."""
        marks = [structures // 4, structures // 2, structures]
        most = {mark: {"parent": 0.0, "readers": 0.0} for mark in marks}

        def look() -> None:
            rows = self.rows()
            now = most[next((mark for mark in marks if rows < mark), structures)]
            for who, megabytes in self.megabytes().items():
                now[who] = max(now[who], megabytes)

        self.wait(look)
        return {"seconds": time.monotonic() - self.began, "megabytes": most}

    def wait(self, look: Callable[[], object]) -> None:
        """Looks again and again until it is done."""
        while self.process.poll() is None:
            look()
            time.sleep(_SECONDS)
        if self.process.returncode:
            raise RuntimeError(f"jaxmat predict ends with {self.process.returncode}")

    def megabytes(self) -> dict[str, float]:
        """Returns what its process and those that it has started hold now."""
        readers = sum(map(_resident, children(self.process.pid)))
        return {"parent": _resident(self.process.pid), "readers": readers}


def kill_and_go_on(
    model: str | Path, place: Path, source: str, structures: int
) -> dict[str, bool | int]:
    """Kills a prediction half-way, and goes on with it.

    Returns:
        How many rows were written by then, whether all processes ended with it, and whether the
        file is that of the prediction that was not killed.
    """
    output = place / "killed.csv"
    run = Run(model, place / source, output)
    while run.rows() < structures // 2 and run.process.poll() is None:
        time.sleep(_SECONDS)
    readers, rows = children(run.process.pid), run.rows()
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    time.sleep(10)
    ended = not any(Path(f"/proc/{pid}").exists() for pid in readers)
    Run(model, place / source, output, "--resume").wait(lambda: None)
    whole = (place / f"{source}.out.csv").read_bytes()
    return {"rows": rows, "readers_ended": ended, "same_file": output.read_bytes() == whole}


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text(encoding="ascii").split())
    return found


def _resident(pid: int) -> float:
    """Returns the megabytes that a process holds, 0 where it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        if match := re.search(r"VmRSS:\s*(\d+) kB", status):
            return int(match[1]) / 1024
    return 0.0


def write_tables(place: Path, folder: Path) -> None:
    """Writes tables of the crystals of a folder: CSV, JSON lines, extended XYZ."""
    with (
        (place / "table.csv").open("w", encoding="utf-8") as csv,
        (place / "table.jsonl").open("w", encoding="utf-8") as lines,
        (place / "table.xyz").open("w", encoding="utf-8") as frames,
    ):
        csv.write("name,structure,gap\n")
        for entry in read(folder):
            name, text = Path(entry.name).stem, Path(entry.name).read_text(encoding="utf-8")
            csv.write(f'{name},"{text.replace(chr(34), chr(34) * 2)}",1.5\n')
            crystal = entry.structure
            record = {"material_id": name, "structure": crystal.as_dict(), "gap": 1.5}
            lines.write(json.dumps(record) + "\n")
            cell = " ".join(map(str, crystal.lattice.matrix.ravel().tolist()))
            frames.write(f'{len(crystal)}\nLattice="{cell}" name={name} gap=1.5\n')
            frames.writelines(f"{s.specie.symbol} {s.x} {s.y} {s.z}\n" for s in crystal)


def _save_random_model(place: Path) -> Path:
    structures = list(read_table("bundled:dielectric").structures[:1])
    bundle = random_bundle(structures, "cogn")
    save_bundle(place / "model", bundle._replace(about={**bundle.about, "elements": None}))
    return place / "model"


def _define_flags() -> None:
    flags.DEFINE_integer("structures", 20_000, "Crystals to predict.", lower_bound=8)
    flags.DEFINE_string("model", "", "Bundle or run; else random weights.")
    sources = [FOLDER, "table.csv", "table.jsonl", "table.xyz"]
    flags.DEFINE_multi_enum("sources", sources, sources, "Which of them.")
    flags.DEFINE_string("json", "", "File to write the numbers to.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
