"""What a very large table takes: time and memory of every stage, from reading to predicting.

    python -m benchmarks.scale --structures=132752 --json=FILE

The table is made: crystals of a bundled one (--data=FILE: of another), each strained at random, no
two alike. Each stage is a process of its own; reading is killed once and goes on. Memory is that of
a process and all it has started, as the system counts it (Linux), pages of mapped files included.
The memory of a training may pass its limit by what a step with the largest batch takes, which stage
"step" tells. Exit code 1 where a limit is missed. The limits of time are those of two cores and
132,752 crystals.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from pymatgen.core import Element

from benchmarks.measure import training_step
from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.model import Model, initial_variables
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.content import Content
from jaxmat.data.batches import TrainingBatches
from jaxmat.data.duplicates import find_duplicates
from jaxmat.data.findings import Findings
from jaxmat.data.fingerprint import fingerprint
from jaxmat.data.order import Order
from jaxmat.data.shapes import graph_sizes
from jaxmat.data.tables import read_table
from jaxmat.experiments import defaults, run
from jaxmat.experiments.baseline import fit_baseline, spread_of
from jaxmat.experiments.labelled import Labelled, find_labelled
from jaxmat.experiments.outcome import Answers, write_files
from jaxmat.experiments.pages import write_page
from jaxmat.experiments.prepare import graph_settings, make_graphs, prepare
from jaxmat.experiments.single import prepare_member
from jaxmat.experiments.splitting import find_split
from jaxmat.models.network import complete_options
from jaxmat.report.tables import format_table
from jaxmat.training.sending import send

STEPS, BATCH, PREDICTED = 200, 64, 20_000
MEGABYTES = 1500  # of training: beyond what a step takes
READ_AND_BUILD, START, SOME = 480.0, 5.0, 20.0  # s
# Of a strain, largest entry.
_STRAIN = 0.03
_TABLE, _FEW = "table.json.gz", "few.json.gz"
_SECONDS_BETWEEN_LOOKS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str]) -> int:
    """Runs the benchmark, or a stage of it."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    if values.stage:
        print(json.dumps(STAGES[values.stage](Path(values.folder))), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_table(Path(folder), values.data, values.structures)
        stages = measure(Path(folder), values.structures)
    misses = find_misses(stages)
    numbers = {"structures": values.structures, "cores": os.cpu_count(), "stages": stages}
    print(format_table([{"stage": name, **stage} for name, stage in stages.items()]))
    print("\n".join(misses) or "All limits are kept.")
    if values.json:
        text = json.dumps({**numbers, "missed": misses}, indent=1) + "\n"
        Path(values.json).write_text(text, encoding="utf-8")
    return int(bool(misses))


def make_table(folder: Path, source: str, structures: int) -> None:
    """Writes a table of strained crystals and one of its first rows."""
    contents = read_table(source).contents
    seen: set[bytes] = set()
    numbers = range(structures)
    with Rows(folder / _TABLE, numbers) as whole, Rows(folder / _FEW, numbers[:PREDICTED]) as few:
        for number in numbers:
            crystal = strained(contents[number % len(contents)], number)
            assert crystal.key() not in seen
            seen.add(crystal.key())
            volume = abs(float(np.linalg.det(crystal.lattice))) / len(crystal.atomic_number)
            for rows in (whole, few)[: 2 if number < PREDICTED else 1]:
                rows.add(crystal, volume)


def strained(content: Content, seed: int) -> Content:
    """Returns a crystal under a random strain."""
    strain = np.random.default_rng(seed).uniform(-_STRAIN, _STRAIN, (3, 3))
    lattice = content.lattice @ (np.eye(3) + (strain + strain.T) / 2)
    return content._replace(lattice=lattice.round(6))


class Rows:
    """A table in the layout of pandas' "split", written row by row."""

    def __init__(self, path: Path, numbers: range) -> None:
        """Opens the file; ids are s-0, s-1, ..."""
        self._stream = gzip.open(path, "wt", 1, encoding="utf-8")
        self._before = ""
        head = {"columns": ["structure", "volume"], "index": [f"s-{number}" for number in numbers]}
        self._stream.write(json.dumps(head)[:-1] + ', "data": [')

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.write("]}\n")
        self._stream.close()

    def add(self, crystal: Content, label: float) -> None:
        """Writes a row."""
        structure = {
            "lattice_mat": crystal.lattice.tolist(),
            "elements": [Element.from_Z(z).symbol for z in crystal.atomic_number.tolist()],
            "coords": crystal.fractional.tolist(),
            "cartesian": False,
        }
        self._stream.write(self._before + json.dumps([structure, label]))
        self._before = ", "


def measure(folder: Path, structures: int) -> dict[str, dict[str, float]]:
    """Runs the stages; returns what they say and their memory."""
    stages: dict[str, dict[str, float]] = {}
    rows = folder / "cache" / "jaxmat" / "tables"

    def enough() -> bool:
        return sum(file.stat().st_size for file in rows.glob("*/crystals.bin")) > 300 * structures

    stages["read, killed"] = watch(folder, "read", enough)
    stages["read on"] = watch(folder, "read")
    for name in ("build", "start", "parts", "train", "step", "report"):
        stages[name] = watch(folder, name)
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("jaxmat")), "predict"]
    command += [f"--model={folder / 'report' / 'model'}", f"--input={folder / _FEW}"]
    stages["predict"] = observe([*command, f"--output={folder / 'few.csv'}"], folder)
    stages["predict"]["seconds"] = time.monotonic() - began
    return stages


def watch(folder: Path, stage: str, kill: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """Runs a stage; returns what it says, its seconds and its memory."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.scale", f"--stage={stage}", f"--folder={folder}"]
    said = observe(command, folder, kill)
    return {"seconds": time.monotonic() - began, **said}


def observe(
    command: list[str], folder: Path, kill: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Runs a program; returns what its last line says and the most memory."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    most = killed = 0
    before = processor_seconds()
    with (folder / "said").open("w+") as said:
        with subprocess.Popen(command, stdout=said, env=environment) as process:
            while process.poll() is None:
                most = max(most, sum(map(resident, family(process.pid))))
                if kill():
                    killed = 1
                    process.kill()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        if process.returncode and not killed:
            raise SystemExit(f"{command} fails with exit code {process.returncode}")
        said.seek(0)
        last = said.read().splitlines()[-1:]
    answer = json.loads(last[0]) if last and last[0].startswith("{") else {}
    return {
        **answer,
        "processor seconds": processor_seconds() - before,
        "megabytes": most / 2**20,
    }


def processor_seconds() -> float:
    """Returns what all programs have taken that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family(process: int) -> Iterator[int]:
    """Yields a process and all that it has started, as far as they run."""
    yield process
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return


def resident(process: int) -> int:
    """Returns the bytes of a process that are in memory."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def config_of(folder: Path) -> ConfigDict:
    """Returns the config of the training."""
    config = defaults.scratch(path=str(folder / _TABLE), target="volume", unit="Å^3")
    config.training.update(batch_size=BATCH, epochs=1)
    return config


def read_all(folder: Path) -> dict[str, float]:
    """Reads the table."""
    return {"rows": len(open_table(folder).table.ids)}


def open_table(folder: Path) -> Labelled:
    """Returns the rows of the table, as a training gets them."""
    return find_labelled(config_of(folder).data, None, Findings("table"))


def build_all(folder: Path) -> dict[str, float]:
    """Builds the graphs of the table."""
    config = config_of(folder)
    graphs = make_graphs(config.data, open_table(folder).table, graph_settings(config))
    return {"graphs": len(graphs)}


def start_again(folder: Path) -> dict[str, float]:
    """Gets all ready to train once more, as a training does: from opening the table on."""
    config = config_of(folder)
    began = time.monotonic()
    prepare(config.data, config.seed, graph_settings(config))
    return {"prepared": time.monotonic() - began}


def time_parts(folder: Path) -> dict[str, float]:
    """Does again what a start consists of, each part alone."""
    config, seconds = config_of(folder), {}
    settings = graph_settings(config)

    def timed(name: str, do: Callable[[], Any]) -> Any:
        began = time.monotonic()
        result = do()
        seconds[name] = time.monotonic() - began
        return result

    labelled = timed("open", lambda: open_table(folder))
    table = labelled.table
    split = timed("split", lambda: find_split(config.data, 0, labelled, Findings("table")))
    config.data.split_by = "chemical_system"
    timed("group split", lambda: find_split(config.data, 0, labelled, Findings("table")))
    used = np.concatenate(split)
    graphs = timed("graphs", lambda: make_graphs(config.data, table.take(used), settings))
    timed("duplicates", lambda: find_duplicates(table.contents, split, graphs, settings))
    train = table.take(split.train), labelled.labels[split.train]
    timed("fingerprint", lambda: fingerprint(*train))
    return seconds


def train_some(folder: Path) -> dict[str, float]:
    """Trains some steps."""
    began = time.monotonic()
    steps: list[float] = []

    def stop(step: int) -> bool:
        steps.append(time.monotonic())
        return step >= STEPS

    run(config_of(folder), folder / "run", stop)
    return {"first step": steps[1] - began, "steps": len(steps) - 1}


def measure_step(folder: Path) -> dict[str, float]:
    """Tells the memory of a training step with the largest batch, as it is compiled."""
    config, workdir = config_of(folder), folder / "step"
    workdir.mkdir()
    member = prepare_member(config, workdir)
    data = member.data.datasets["train"]
    order = Order(len(data.graphs), BATCH, epochs=1, seed=config.seed, drop_last=True)
    shapes = TrainingBatches(
        [(data, order)], max_shapes=config.training.max_shapes, stacked=False
    ).shapes
    crystal = data.take(np.argmin(graph_sizes(data.graphs)[:, 1], keepdims=True))
    batch = crystal.batch(np.arange(1), shapes[-1])
    state, differentiate, _ = training_step(
        member.model.network(), member.variables, config.training
    )
    memory = differentiate.lower(state, send(batch)).compile().memory_analysis()
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {"step": (memory.temp_size_in_bytes + arrays) / 2**20}


def report(folder: Path) -> dict[str, float]:
    """Writes all that a training leaves, with random predictions in place of a network's."""
    config = config_of(folder)
    data = prepare(config.data, config.seed, graph_settings(config))
    trunk = complete_options(config.network.trunk)
    heads = {name: config.network.head.to_dict() for name in data.transforms}
    model = Model(trunk, heads, graph_settings(config), data.transforms)
    variables = initial_variables(model.network(), data.datasets["train"], 0)
    workdir = folder / "report"
    workdir.mkdir()
    began = time.monotonic()
    baseline = fit_baseline(data, 0)
    random = np.random.default_rng(0)
    answers = {
        part: Answers(
            some.target + random.normal(size=some.target.shape),
            spread_of(baseline, data, part)[:, None],
        )
        for part, some in data.datasets.items()
    }
    fitted = time.monotonic() - began
    about = make_about("not trained", elements=[]) | {"calibration": {}, "data": data.origin}
    result = write_files(workdir, data, answers, Bundle(model, variables, about), {})
    write_page(workdir, config, result)
    return {"baseline": fitted, "report": time.monotonic() - began - fitted}


STAGES = {
    "read": read_all,
    "build": build_all,
    "start": start_again,
    "parts": time_parts,
    "train": train_some,
    "step": measure_step,
    "report": report,
}
PARTS = ("open", "split", "group split", "graphs", "duplicates", "fingerprint")


def find_misses(stages: dict[str, dict[str, float]]) -> list[str]:
    """Returns the limits that are missed, in words."""
    reading = sum(stages[name]["seconds"] for name in ("read, killed", "read on", "build"))
    told = [("reading and building", reading, READ_AND_BUILD)]
    told.append(("a second start", stages["start"]["prepared"], START))
    told += [(name, value, SOME) for name, value in stages["parts"].items() if name in PARTS]
    told.append(("the report", stages["report"]["report"], SOME))
    misses = [f"{name}: {took:.1f} s, not {most:g}" for name, took, most in told if took > most]
    for name, stage in stages.items():
        most = MEGABYTES + (stages["step"]["step"] if name == "train" else 0.0)
        if stage["megabytes"] > most:
            misses.append(f"{name}: {stage['megabytes']:.0f} MB, not {most:.0f}")
    return misses


def _define_flags() -> None:
    flags.DEFINE_integer("structures", 132_752, "Rows of the table.", lower_bound=1000)
    flags.DEFINE_string("data", "bundled:formation_energy", "Table whose crystals are strained.")
    flags.DEFINE_string("json", "", "File to write the numbers to.")
    flags.DEFINE_string("stage", "", "Of a process that does a stage.")
    flags.DEFINE_string("folder", "", "Where its files are.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
