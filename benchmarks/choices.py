"""Whether `jaxmat choose` keeps its time, and whether the error that it expects holds.

    python -m benchmarks.choices --csv=FILE [--minutes=1] [--draws=20]

Each draw takes 100 of the bundled dielectric constants, chooses among models that start from
nothing and from one that comes with the package, has seen none of their table and is tested on 500
other crystals. A row is added to the file at once; draws that are in it are not done again.

Exit code 1: a choice took longer than its time, or fewer than 17 of 20 test errors lie within two
standard errors of the expected ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from benchmarks.kept import add_done, find_done
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.experiments import carry_out, defaults

LABELS, TESTED, START = 100, 500, "no_dielectric"
# Share of the draws whose test error has to lie within two standard errors.
LEAST = 17 / 20


class Row(NamedTuple):
    """One choice; errors are of the dielectric constant.

    Attributes:
        draw: number, seed of labels and test part.
        minutes: that it was given.
        picked: what it took.
        expected: MAE that it expects.
        error: standard error of that.
        test: MAE on the test part.
        seconds: that all took.
    """

    draw: int
    minutes: float
    picked: str
    expected: float
    error: float
    test: float
    seconds: float


def main(argv: list[str]) -> None:
    """Does the draws that are missing and checks all."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    file = Path(values.csv)
    for draw in range(values.draws):
        if draw not in [row.draw for row in find_done(file, Row)]:
            add_done(file, [choose_once(draw_config(draw, values.minutes))])
    rows = find_done(file, Row)
    held = sum(abs(row.test - row.expected) <= 2 * row.error for row in rows)
    late = [row.draw for row in rows if row.seconds > 60 * row.minutes]
    print(f"{held} of {len(rows)} test errors lie within two standard errors of the expected one.")
    print(f"Choices that took longer than their time: {late or 'none'}.")
    if late or held < LEAST * len(rows):
        sys.exit(1)


def draw_config(draw: int, minutes: float) -> ConfigDict:
    """Returns the config of a choice on labels of its own."""
    config = defaults.choose(path="bundled:dielectric", target="poly_total", unit="1")
    config.seed = config.data.test_seed = draw
    config.minutes, config.candidates = minutes, (START,)
    config.data.update(log=True, n_train=9 * LABELS // 10, n_validation=LABELS // 10, n_test=TESTED)
    config.training.update(epochs=200, evaluate_every=10, test_with="last")
    return config


def choose_once(config: ConfigDict) -> Row:
    """Returns what came of a choice."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = carry_out(config, Path(folder) / "choice")
    assert result is not None
    return Row(
        draw=config.seed,
        minutes=config.minutes,
        picked="; ".join(f"{w:.2g} {option}" for option, w in result["weights"].items()),
        expected=result["expected_mae"],
        error=result["expected_mae_standard_error"],
        test=result["test_mae"],
        seconds=time.monotonic() - began,
    )


def _define_flags() -> None:
    flags.DEFINE_string("csv", None, "File that rows are added to.", required=True)
    flags.DEFINE_float("minutes", 1.0, "Time of a choice.")
    flags.DEFINE_integer("draws", 20, "Choices.", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
