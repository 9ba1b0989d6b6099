"""What a Gaussian process on descriptors makes of the same labels: a baseline, and intervals.

It is fitted in seconds. A network has to beat it, and how uncertain it is about a crystal tells how
far that lies from the training crystals, and so how wide the interval of a network has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmat.bundles.intervals import LEVEL
from jaxmat.crystals.descriptors import COLUMNS, descriptor_blocks
from jaxmat.data.batches import Dataset
from jaxmat.data.store import descriptors_of
from jaxmat.data.targets import TargetTransform
from jaxmat.experiments.prepare import Prepared
from jaxmat.models.gaussian_process import expected_error, posterior_mean
from jaxmat.report.tables import format_quantity
from jaxmat.training.gaussian_process import MOST_LABELS, Fitted, fit
from jaxmat.training.metrics import conformal_factor, conformal_half_width, paired_difference

# Labels of a process that tells spreads; a bundle keeps the square of this many numbers.
_REFERENCES = 500
# Validation labels from which on they calibrate intervals at the level of 90 %.
_ENOUGH = 9
_SEED = 0
_FITTED = ("train", "validation")  # parts whose labels are
_AT_ONCE = 2048  # crystals

# Of the arrays of a process and inputs, [crystals, columns].
Function = Callable[[Mapping[str, Any], np.ndarray], Any]


class Baseline(NamedTuple):
    """A process on descriptors, fitted to the labels of a property.

    Attributes:
        labels: that it was fitted to; where there are more than `MOST_LABELS`, some drawn.
        prediction: of the test crystals, scaled, [crystals].
        spreader: a process of `_REFERENCES` labels at most, whose expected error is the spread.
        spreads: by part, of crystals that the spreader was fitted to as if it had not been; NaN of
            others, [crystals].
    """

    labels: int
    prediction: np.ndarray
    spreader: Fitted
    spreads: Mapping[str, np.ndarray]


def describe(data: Dataset) -> np.ndarray:
    """Returns the descriptors of crystals, float32 [crystals, columns]."""
    return descriptors_of(data.graphs).astype(np.float32)


def fit_baseline(data: Prepared, column: int) -> Baseline | None:
    """Returns the baseline of a property, None with fewer than two labels.

    Args:
        data: the data sets; training and validation labels are both labels.
        column: of the property.
    """
    parts = [data.datasets[part] for part in _FITTED]
    target = np.concatenate([part.target[:, column] for part in parts])
    spreads = np.full(len(target), np.nan)
    labelled = np.flatnonzero(~np.isnan(target))
    if len(labelled) < 2:
        return None
    drawn = labelled[np.random.default_rng(_SEED).permutation(len(labelled))]
    some, few = drawn[:MOST_LABELS], drawn[:_REFERENCES]
    inputs = _describe_some(parts, some)
    whole = spreader = fit(inputs, target[some], descriptor_blocks())
    if len(some) > len(few):
        spreader = fit(inputs[: len(few)], target[few], descriptor_blocks())
    prediction = of_descriptors(posterior_mean, whole.process, data.datasets["test"])
    spreads[few] = spreader.spread
    ends = np.cumsum([len(part.graphs) for part in parts])[:-1]
    own = dict(zip(_FITTED, np.split(spreads, ends), strict=True))
    return Baseline(len(some), prediction, spreader, own)


def spread_of(baseline: Baseline | None, data: Prepared, part: str) -> np.ndarray:
    """Returns the spreads of the crystals of a part, 1 without a baseline, [crystals]."""
    crystals = data.datasets[part]
    if baseline is None:
        return np.ones(len(crystals.graphs))
    found = of_descriptors(expected_error, baseline.spreader.process, crystals)
    own = baseline.spreads.get(part, np.nan)
    return np.where(np.isnan(own), found, own)


def of_descriptors(function: Function, process: Mapping[str, Any], data: Dataset) -> np.ndarray:
    """Returns a function of a process and the descriptors of crystals, [crystals]."""
    crystals = len(data.graphs)
    return in_parts(function, process, lambda rows: describe(data.take(rows)), crystals)


def in_parts(
    function: Function,
    process: Mapping[str, Any],
    inputs: Callable[[np.ndarray], np.ndarray],
    crystals: int,
) -> np.ndarray:
    """Returns a function of a process and crystals, few at a time, [crystals].

    Args:
        function: such as `posterior_mean`.
        process: arrays of a fitted process.
        inputs: of some rows, [rows, columns].
        crystals: how many there are.
    """
    rows = np.arange(crystals)
    starts = range(0, max(crystals, 1), _AT_ONCE)
    program = jax.jit(function)  # a new one for each operation would take longer to compile
    parts = [program(process, inputs(rows[i : i + _AT_ONCE])) for i in starts]
    return np.concatenate(parts).astype(np.float64)


def _describe_some(parts: Sequence[Dataset], rows: np.ndarray) -> np.ndarray:
    """Returns the descriptors of some crystals of parts one after another, [rows, columns]."""
    found, start = np.empty((len(rows), COLUMNS), np.float32), 0
    for part in parts:
        end = start + len(part.graphs)
        here = (start <= rows) & (rows < end)
        if here.any():
            found[here] = describe(part.take(rows[here] - start))
        start = end
    return found


def calibrate(
    baseline: Baseline, data: Prepared, prediction: np.ndarray, column: int
) -> dict[str, Any]:
    """Returns the calibration of a network's intervals; see `jaxmat.bundles.about.make_about`.

    On the errors of the validation part where these are enough. Otherwise on the baseline's
    leave-one-out errors: the network is taken to be no worse.

    Args:
        baseline: of the property.
        data: the data sets.
        prediction: of the validation part, scaled, [crystals].
        column: of the property.
    """
    target = data.datasets["validation"].target[:, column]
    spread = spread_of(baseline, data, "validation")
    known = np.isfinite(target) & np.isfinite(prediction)
    method, errors = "validation", np.abs(target - prediction)[known]
    spreads = spread[known]
    if len(errors) < _ENOUGH:
        method, fitted = "leave-one-out of the descriptors", baseline.spreader
        errors, spreads = np.abs(fitted.target - fitted.mean), fitted.spread
    return interval(errors, spreads, method) | {
        "process_labels": len(baseline.spreader.process["weights"])
    }


def interval(errors: np.ndarray, spreads: np.ndarray, method: str) -> dict[str, Any]:
    """Returns what a bundle keeps of an interval but for the number of labels of its process.

    Args:
        errors: absolute errors of scaled predictions, at least one, [crystals].
        spreads: of the same crystals, [crystals].
        method: on what errors it is calibrated, in words.
    """
    factor = conformal_factor(errors / spreads, LEVEL)
    constant = conformal_half_width(errors, np.zeros_like(errors), LEVEL)
    return {
        "level": LEVEL,
        "half_width": float(np.median(factor * spreads)) if constant is None else constant,
        "factor": factor,
        "method": method,
        "process_labels": 0,
    }


def compare(
    name: str,
    transform: TargetTransform,
    labels: np.ndarray,
    prediction: np.ndarray,
    baseline: Baseline,
) -> str:
    """Returns in one sentence whether a model beats the baseline on test crystals.

    Args:
        name: of the property.
        transform: of the property.
        labels: of the test crystals in the unit, NaN where missing, [crystals].
        prediction: the model's, scaled, [crystals].
        baseline: of the property.
    """
    known = ~np.isnan(labels)
    ours, theirs = (
        np.abs(transform.to_unit(each[known]) - labels[known])
        for each in (prediction, baseline.prediction)
    )
    if not np.isfinite(ours).all() or not known.any():
        return f"Nothing can be said of {name}: there is no finite error to compare."
    difference, half = paired_difference(ours, theirs)
    quantity = f"{format_quantity(abs(difference), transform.unit)} (± {half:.2g} at 95 %)"
    if abs(difference) <= half:
        verdict = "does not differ beyond the noise from"
    else:
        verdict = "beats" if difference < 0 else "is beaten by"
    side = "lower" if difference < 0 else "higher"
    return (
        f"The model {verdict} a Gaussian process on descriptors fitted to {baseline.labels} of "
        f"the same labels: its test MAE of {name} is {quantity} {side} on {known.sum()} crystals."
    )
