"""The Gaussian process on descriptors, on crystals of the pools: what it was developed on.

    python -m benchmarks.gaussian_process --data=FOLDER

It is fitted to the labels of each published trial and predicts up to 500 crystals that are neither
among them nor in the test part. Prints means over trials: errors, in half ranges, of the median, of
a kernel with one length for all columns and of the default; then what the default's intervals are
worth with the standard deviation as their spread, and with `expected_error`, which is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks.few_labels import SETS, TRIALS, judge
from benchmarks.trunks import development_split
from jaxmat.bundles.intervals import LEVEL
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.descriptors import COLUMNS, descriptor_blocks
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.targets import TargetTransform, fit_transform
from jaxmat.experiments import defaults
from jaxmat.experiments.prepare import make_graphs
from jaxmat.experiments.study.samples import IdLists, read_samples
from jaxmat.experiments.study.tables import TableFile, find_tables, read_table
from jaxmat.models.gaussian_process import expected_error, posterior, posterior_mean
from jaxmat.report.predictions import Prediction
from jaxmat.report.tables import Cell, format_table
from jaxmat.training.gaussian_process import Fitted, fit
from jaxmat.training.metrics import conformal_factor, conformal_half_width

SIZES = (10, 100, 800)
_ENOUGH = 100  # labels from which intervals are judged


class Crystals(NamedTuple):
    """The crystals of a part of a trial.

    Attributes:
        ids: [crystals].
        inputs: descriptors, [crystals, columns].
        labels: in the unit, [crystals].
    """

    ids: Sequence[str]
    inputs: np.ndarray
    labels: np.ndarray


def main(argv: list[str]) -> None:
    """Fits the process to each trial and prints both tables."""
    refuse_arguments(argv, "See --help.")
    tables = find_tables(flags.FLAGS.data)
    errors: list[dict[str, Cell]] = []
    intervals: list[dict[str, Cell]] = []
    for name in SETS:
        of_errors, of_intervals = measure(tables[name])
        errors += of_errors
        intervals += of_intervals
    print(format_table(errors))
    print(format_table(intervals))


def measure(table: TableFile) -> tuple[list[dict[str, Cell]], list[dict[str, Cell]]]:
    """Returns the lines of a set in both tables."""
    settings = defaults.data()
    samples = read_samples(table, settings)
    labelled = read_table(table, settings)
    graphs = make_graphs(settings, labelled.table, GraphSettings(angles=False))
    inputs = np.stack([graph.descriptors for graph in graphs]).astype(np.float32)
    rows = {id: i for i, id in enumerate(labelled.table.ids)}
    half_range = (table.lists["scaling"]["max"] - table.lists["scaling"]["min"]) / 2
    errors: list[dict[str, Cell]] = []
    intervals: list[dict[str, Cell]] = []
    for size in SIZES:
        of_trials = []
        for trial in TRIALS:
            split = development_split(samples, size, trial)
            known, new = (
                _take(split, parts, rows, inputs, labelled.labels[:, 0])
                for parts in (("train", "validation"), ("test",))
            )
            of_trials.append(judge_trial(known, new, samples.heavy_tail, half_range))
        keys: dict[str, Cell] = {"set": table.key, "labels": size}
        errors.append(keys | _mean([each for each, _ in of_trials]))
        if size >= _ENOUGH:
            intervals.append(keys | _mean([each for _, each in of_trials]))
    return errors, intervals


def _take(
    split: IdLists, parts: Sequence[str], rows: dict[str, int], inputs: np.ndarray, labels: Any
) -> Crystals:
    """Returns crystals of parts of a split."""
    ids = [id for part in parts for id in split[part]]
    places = [rows[id] for id in ids]
    return Crystals(ids, inputs[places], labels[places])


def judge_trial(
    known: Crystals, new: Crystals, log: bool, half_range: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the errors of a trial in half ranges, and what its intervals are worth.

    Args:
        known: what is fitted to.
        new: what is predicted.
        log: whether the process is fitted to logarithms.
        half_range: of all labels of the set, in the unit.
    """
    transform = fit_transform(known.labels, name="label", unit="1", scaling="standard", log=log)
    target = transform.to_scaled(known.labels)
    one, two = (fit(known.inputs, target, blocks) for blocks in ((COLUMNS,), descriptor_blocks()))
    predictions = {
        "median": np.full(len(new.ids), np.median(known.labels)),
        "one length": transform.to_unit(np.asarray(posterior_mean(one.process, new.inputs))),
        "two lengths": transform.to_unit(np.asarray(posterior_mean(two.process, new.inputs))),
    }
    errors = {
        name: float(np.mean(np.abs(prediction - new.labels))) / half_range
        for name, prediction in predictions.items()
    }
    return errors, judge_intervals(two, new, transform)


def judge_intervals(fitted: Fitted, new: Crystals, transform: TargetTransform) -> dict[str, float]:
    """Returns what intervals with either spread are worth; scores are relative to one width."""
    scaled, deviation = (np.asarray(part) for part in posterior(fitted.process, new.inputs))
    left_out = np.abs(fitted.mean - fitted.target)
    # The process keeps these errors over the deviations expected of them.
    spreads = {
        "deviation": (deviation, fitted.process["ratios"]),
        "default": (
            np.asarray(expected_error(fitted.process, new.inputs)),
            left_out / fitted.spread,
        ),
    }
    constant = conformal_half_width(left_out, np.zeros_like(left_out), LEVEL)
    assert constant is not None  # it takes nine labels
    found: dict[str, float] = {}
    for name, (spread, ratios) in spreads.items():
        half_widths = conformal_factor(ratios, LEVEL) * spread
        judged = _judge(new, transform, scaled, half_widths, constant)
        found |= {
            f"{name}: score": judged["score"] / judged["constant_score"],
            f"{name}: coverage": judged["coverage"],
            f"{name}: correlation": judged["spearman"],
        }
    return found


def _judge(
    new: Crystals,
    transform: TargetTransform,
    scaled: np.ndarray,
    half_widths: np.ndarray,
    constant: float,
) -> dict[str, Any]:
    """Returns how good intervals are, see `judge`; predictions and widths are scaled."""
    values = (transform.to_unit(scaled + w).tolist() for w in (0.0, -half_widths, half_widths))
    rows = [
        Prediction(id, "test", label, prediction, "1", low, high)
        for id, label, prediction, low, high in zip(
            new.ids, new.labels.tolist(), *values, strict=True
        )
    ]
    return judge(rows, (transform.to_unit(scaled - constant), transform.to_unit(scaled + constant)))


def _mean(of_trials: Sequence[dict[str, float]]) -> dict[str, Cell]:
    """Returns the mean of each number over trials."""
    return {key: float(np.mean([each[key] for each in of_trials])) for key in of_trials[0]}


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    run_program(main)
