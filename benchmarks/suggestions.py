"""What suggestions are worth: the error against the number of labels, suggested or drawn at random.

    python -m benchmarks.suggestions --csv=FILE

Of the bundled dielectric constants a third is set aside. A Gaussian process on descriptors starts
with 10 labels of the others and is given 10 more again and again: those that tell most of the
others, as `jaxmat suggest` names them, those with the widest intervals, or random ones. Its error
on what was set aside is the mean over draws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from jaxmat.bundles.intervals import LEVEL
from jaxmat.bundles.predict import Forecast
from jaxmat.bundles.suggest import posterior_covariance, suggest
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.descriptors import descriptor_blocks
from jaxmat.crystals.graph import GraphSettings
from jaxmat.experiments import defaults
from jaxmat.experiments.prepare import make_graphs, read_labelled
from jaxmat.models.gaussian_process import expected_error, posterior
from jaxmat.report.rows import write_rows
from jaxmat.report.tables import Cell, format_table
from jaxmat.training.gaussian_process import Fitted, fit
from jaxmat.training.metrics import conformal_factor

STEP, MOST, DRAWS = 10, 100, 10
WAYS = ("suggested", "widest", "random")


def main(argv: list[str]) -> None:
    """Measures all ways and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    config = defaults.data(path="bundled:dielectric", target="poly_total", unit="1")
    labelled = read_labelled(config)
    graphs = make_graphs(config, labelled.table, GraphSettings(angles=False))
    inputs = np.stack([graph.descriptors for graph in graphs])
    target = np.log(labelled.labels[:, 0])
    errors = {
        way: np.mean([learn(inputs, target, way, draw) for draw in range(values.draws)], axis=0)
        for way in WAYS
    }
    lines: list[dict[str, Cell]] = [
        {"labels": STEP * (i + 1), **{way: float(errors[way][i]) for way in errors}}
        for i in range(MOST // STEP)
    ]
    rows = (tuple(float(str(cell)) for cell in line.values()) for line in lines)
    write_rows(Path(values.csv), list(lines[0]), rows)
    print(format_table(lines))


def learn(inputs: np.ndarray, target: np.ndarray, way: str, draw: int) -> list[float]:
    """Returns the mean absolute error, in the unit, with 10, 20, ... labels.

    Args:
        inputs: descriptors, [crystals, columns].
        target: logarithms of the labels, [crystals].
        way: one of `WAYS`.
        draw: seed of what is set aside, of the first labels and of random ones.
    """
    rng = np.random.default_rng(draw)
    order = rng.permutation(len(target))
    test, pool = np.split(order, [len(order) // 3])
    known, errors = pool[:STEP], []
    while True:
        fitted = fit(inputs[known], target[known], descriptor_blocks())
        prediction = np.asarray(posterior(fitted.process, inputs[test].astype(np.float32))[0])
        errors.append(float(np.mean(np.abs(np.exp(prediction) - np.exp(target[test])))))
        if len(known) == MOST:
            return errors
        free = np.setdiff1d(pool, known)
        more = rng.permutation(free)
        if way == "suggested":
            more = named(fitted, inputs, free, known)
        elif way == "widest":
            more = free[np.argsort(-interval_widths(fitted, inputs[free]))]
        known = np.concatenate([known, more[:STEP]])


def named(fitted: Fitted, inputs: np.ndarray, free: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the crystals that are suggested next."""
    forecasts = [Forecast(str(i), "poly_total", 0.0, "1", 1.0, -1.0, 1.0, "", "") for i in free]
    covariance = posterior_covariance(fitted.process, inputs[free])
    suggestions = suggest(forecasts, inputs[free], inputs[known], STEP, None, covariance)
    return np.array([int(one.id) for one in suggestions])


def interval_widths(fitted: Fitted, inputs: np.ndarray) -> np.ndarray:
    """Returns the widths of intervals of a process fitted to logarithms, in the unit."""
    inputs = inputs.astype(np.float32)
    middle = np.asarray(posterior(fitted.process, inputs)[0])
    factor = conformal_factor(np.abs(fitted.mean - fitted.target) / fitted.spread, LEVEL)
    half = factor * np.asarray(expected_error(fitted.process, inputs))
    return np.asarray(np.exp(middle + half) - np.exp(middle - half))


def _define_flags() -> None:
    flags.DEFINE_integer("draws", DRAWS, "Repetitions.", lower_bound=1)
    flags.DEFINE_string("csv", None, "File to write the errors to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
