"""Holds the estimates of time that commands give against the time that it took.

    python -m benchmarks.estimates --workdir=DIR --json=FILE [--small]

Runs the quick start, `choose` and a study with the command, reads what their logs say and prints a
line for each training and for each list of trainings. Takes about half an hour on two cores, and
means something on a quiet machine alone. Exits with 1 where an estimate is more than 30 % off.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import flags

from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.experiments.workdir import LOG, write_json
from jaxmat.report.tables import format_table

_FARTHEST = 0.3  # of the truth
_LEAST = 5.0  # seconds; what is shorter is not judged
_KEPT = re.compile(r"(?P<what>training|\d+ trainings): estimated at (\d+) s, took (\d+) s", re.A)

_TABLE = ("--data=bundled:dielectric", "--target=poly_total", "--unit=1")
_STUDY = (
    *("study", "--config=pairwise", "--config.study.sources=piezoelectric"),
    *("--config.study.targets=dielectric", "--config.study.trials=1,2,3"),
    *("--config.study.source_sizes=400", "--config.study.target_sizes=100"),
)
# What is run, and what makes it small.
COMMANDS = {
    "quick start": (
        ("train", "--config=quickstart"),
        ("--config.finetune.training.epochs=8",),
    ),
    "choose": (
        ("choose", *_TABLE, "--config.data.n_train=300", "--minutes=0"),
        ("--config.data.n_train=60", "--config.training.epochs=8", "--config.folds=3"),
    ),
    "study": (_STUDY, ("--config.pretraining.steps=100", "--config.training.steps=200")),
}


class Estimate(NamedTuple):
    """An estimate and what came of it.

    Attributes:
        run: which of the commands.
        what: "training", or how many.
        estimated: seconds, compiling left out.
        took: seconds likewise.
    """

    run: str
    what: str
    estimated: float
    took: float

    @property
    def is_far_off(self) -> bool:
        """Whether it is more than 30 % off, and long enough to matter."""
        long = max(self.took, self.estimated) >= _LEAST
        return long and abs(self.estimated - self.took) > _FARTHEST * self.took


def read_estimates(run: str, log: Path) -> Iterator[Estimate]:
    """Yields the estimates of a command in the order in which they were held against the truth.

    Args:
        run: its name.
        log: its log.txt.
    """
    for match in _KEPT.finditer(log.read_text(encoding="utf-8")):
        yield Estimate(run, match["what"], float(match[2]), float(match[3]))


def _run(name: str, workdir: Path, small: bool) -> Path:
    """Runs a command to its end, unless it is done there; returns its log."""
    (verb, *arguments), less = COMMANDS[name]
    place = workdir / name.replace(" ", "_")
    options = [*arguments, *(less if small else ()), f"--workdir={place}"]
    command = [str(Path(sys.executable).with_name("jaxmat")), verb, *options]
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"{' '.join(command)} ended with {code}")
    return place / LOG


def main(argv: list[str]) -> int:
    """Runs the program."""
    refuse_arguments(argv, "The flags are --workdir, --json and --small.")
    workdir, small = Path(flags.FLAGS.workdir), flags.FLAGS.small
    found = [one for name in COMMANDS for one in read_estimates(name, _run(name, workdir, small))]
    rows = [
        {
            "run": one.run,
            "of": one.what,
            "estimated, s": f"{one.estimated:.0f}",
            "took, s": f"{one.took:.0f}",
            "off": f"{one.estimated / max(one.took, 1.0) - 1:+.0%}",
        }
        for one in found
    ]
    print(format_table(rows))
    write_json(Path(flags.FLAGS.json), [one._asdict() for one in found])
    missing = set(COMMANDS) - {one.run for one in found}
    return int(bool(missing) or any(one.is_far_off for one in found))


def _define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of the runs; it goes on there.", required=True)
    flags.DEFINE_string("json", None, "File to write the estimates to.", required=True)
    flags.DEFINE_boolean("small", False, "Whether to run little, to try the program.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
