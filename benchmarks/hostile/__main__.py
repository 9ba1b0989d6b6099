"""Tries malformed and hostile inputs on all entry points.

    python -m benchmarks.hostile --json=FILE

At least 400 inputs: files, tables, splits, bundles, checkpoints, state dicts, stores, configs,
command lines and outputs, mutations of valid files (hypothesis) among them. Each is to be refused
with a UserError in our own words or handled rightly, within a time and a memory, those of the
processes that read counted. Prints for each kind how many were tried, refused and handled, the
longest time and the most memory, and exits with 1 where there was a traceback, a silent wrong
result, words of a library, or a limit passed. --share=0.1 tries every tenth.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.hostile import commands, configs, crystals, models, outputs
from benchmarks.hostile.memory import PeakMemory, processor_seconds
from benchmarks.hostile.trial import Trial, Wrong
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.report.tables import Cell, format_table
from jaxmat.runtime.files import write_json

KINDS = {
    "files": crystals.files,
    "tables": crystals.tables,
    "splits": crystals.splits,
    "bundles": models.bundles,
    "checkpoints": models.checkpoints,
    "state dicts": models.state_dicts,
    "stores": models.stores,
    "configs": configs.configs,
    "work directories": configs.work_directories,
    "commands": commands.commands,
    "outputs": outputs.outputs,
}
# What Python and libraries say, which tells a user nothing.
_FOREIGN = re.compile(
    r"could not convert|invalid literal|has no attribute|Expecting|codec can't|NoneType|<class|"
    r"not iterable|unhashable|out of range:|out of bounds|KeyError|Errno|argument must be|"
    r"expected str|embedded null|unreadable: [A-Z]\w+(Error|Exception|Warning)? \(|"
    r"positional argument|float\(\)|int\(\)|flag --"
)
SECONDS, MEGABYTES = 10.0, 1500.0
# Waited for before a worker is killed; on a busy machine the clock of a trial stands still as well.
_PATIENCE = 40.0
_WORKERS = 2


class Tried(NamedTuple):
    """What became of an input.

    Attributes:
        kind: of the input.
        name: of the input.
        outcome: "refused" or "handled", else what is wrong, in words.
        seconds: of processor time that it took.
        megabytes: that it took on top of what was there before, with the processes it started.
    """

    kind: str
    name: str
    outcome: str
    seconds: float
    megabytes: float

    @property
    def problem(self) -> str:
        """What is wrong, "" for nothing."""
        if self.outcome not in ("refused", "handled"):
            return self.outcome
        if self.seconds > SECONDS:
            return f"took {self.seconds:.1f} s"
        return f"took {self.megabytes:.0f} MB" if self.megabytes > MEGABYTES else ""


def try_kind(kind: str, share: float = 1.0, patience: float = _PATIENCE) -> list[Tried]:
    """Tries the inputs of a kind in a process of their own, which is replaced where it hangs.

    Args:
        kind: one of `KINDS`.
        share: of the inputs that is tried.
        patience: seconds after which a trial is given up.
    """
    tried: list[Tried] = []
    start = 0
    while True:
        command = [sys.executable, "-m", "benchmarks.hostile", f"--worker={kind}"]
        command += [f"--start={start}", f"--share={share}"]
        name = ""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as worker:
            assert worker.stdout is not None
            while line := _line(worker, patience + 120.0 * (not name)):
                message = json.loads(line)
                if message.get("done"):
                    return tried
                if "outcome" in message:
                    tried.append(Tried(kind, **message))
                    start += 1
                    name = "between"
                else:
                    name = message["name"]
            worker.kill()
        if start > 10_000 or not name:
            raise RuntimeError(f"the process that tries {kind} does not start")
        tried.append(Tried(kind, name, "hung or ended the process", patience, 0.0))
        start += 1


def _line(worker: subprocess.Popen[str], seconds: float) -> str:
    """Returns a line that a process prints, "" where it does not come in time."""
    assert worker.stdout is not None
    timer = threading.Timer(seconds, worker.kill)
    timer.start()
    try:
        return worker.stdout.readline()
    finally:
        timer.cancel()


def _work(kind: str, start: int, share: float) -> None:
    """Tries inputs from a number on; prints a line before and after each."""
    trials = _chosen(list(KINDS[kind]()), share)
    for trial in trials[start:]:
        print(json.dumps({"name": trial.name}), flush=True)
        print(json.dumps(_try(trial)), flush=True)
    print(json.dumps({"done": True}), flush=True)


def _chosen(trials: Sequence[Trial], share: float) -> list[Trial]:
    step = max(1, round(1 / share))
    return list(trials[::step])


def _try(trial: Trial) -> dict[str, Any]:
    """Returns what became of an input."""
    began = processor_seconds()
    with PeakMemory() as memory, tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        try:
            trial.attempt(Path(folder))
            outcome = "handled"
        except UserError as error:
            lines = str(error).splitlines()
            long = max(map(len, lines)) > 3000 or len(lines) > 60
            outcome = "a message that nobody reads" if long else "refused"
            if foreign := _FOREIGN.search(str(error)):
                outcome = f"words of a library: {foreign[0]!r} in {str(error)!r:.300}"
        except Wrong as error:
            outcome = f"silently wrong: {error}"
        except Exception:
            outcome = f"traceback: {''.join(traceback.format_exc().splitlines(True)[-6:])}"
    return {
        "name": trial.name,
        "outcome": outcome,
        "seconds": processor_seconds() - began,
        "megabytes": memory.megabytes,
    }


def summary(tried: Sequence[Tried]) -> str:
    """Returns a table with a row for each kind, and what is wrong."""
    rows: list[dict[str, Cell]] = []
    for kind in dict.fromkeys(one.kind for one in tried):
        of_kind = [one for one in tried if one.kind == kind]
        rows.append(
            {
                "kind": kind,
                "tried": len(of_kind),
                "refused": sum(one.outcome == "refused" for one in of_kind),
                "handled": sum(one.outcome == "handled" for one in of_kind),
                "wrong": sum(bool(one.problem) for one in of_kind),
                "longest (s)": max(one.seconds for one in of_kind),
                "most memory (MB)": max(one.megabytes for one in of_kind),
            }
        )
    wrong = [f"- {one.kind}, {one.name}: {one.problem}" for one in tried if one.problem]
    return "\n".join([format_table(rows), f"\n{len(tried)} inputs", *wrong])


def _results(share: float) -> Iterator[Tried]:
    with ThreadPoolExecutor(_WORKERS) as threads:
        for tried in threads.map(lambda kind: try_kind(kind, share), KINDS):
            yield from tried


def _define_flags() -> None:
    flags.DEFINE_string("json", None, "File to write.")
    flags.DEFINE_float("share", 1.0, "Of the inputs that is tried.", 0.001, 1.0)
    flags.DEFINE_enum("worker", None, list(KINDS), "Used by the program itself.")
    flags.DEFINE_integer("start", 0, "Used by the program itself.")


def _main(argv: list[str]) -> int | None:
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    if values.worker:
        _work(values.worker, values.start, values.share)
        return None
    began = time.monotonic()
    tried = list(_results(values.share))
    print(summary(tried))
    if values.json:
        seconds = time.monotonic() - began
        write_json(values.json, {"seconds": seconds, "tried": [one._asdict() for one in tried]})
    return 1 if any(one.problem for one in tried) else None


if __name__ == "__main__":
    _define_flags()
    run_program(_main)
