"""What a Gaussian process on descriptors makes of the same labels: a baseline, and intervals.

It is fitted in seconds. A network has to beat it, and how uncertain it is about a crystal tells how
far that lies from the training crystals, and so how wide the interval of a network has to be.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxmat.bundles.intervals import LEVEL
from jaxmat.crystals.descriptors import descriptor_blocks
from jaxmat.data.batches import Dataset
from jaxmat.data.store import descriptors_of
from jaxmat.data.targets import TargetTransform
from jaxmat.experiments.prepare import Prepared
from jaxmat.models.gaussian_process import posterior
from jaxmat.report.tables import format_quantity
from jaxmat.training.gaussian_process import MOST_LABELS, Fitted, fit
from jaxmat.training.metrics import conformal_factor, conformal_half_width, paired_difference

# Labels of a process that tells spreads; a bundle keeps the square of this many numbers.
_REFERENCES = 500
# Validation labels from which on they calibrate intervals at the level of 90 %.
_ENOUGH = 9
_SEED = 0
_AT_ONCE = 2048  # crystals


class Baseline(NamedTuple):
    """A process on descriptors, fitted to the labels of a property.

    Attributes:
        labels: that it was fitted to; where there are more than `MOST_LABELS`, some drawn.
        prediction: of the test crystals, scaled, [crystals].
        spreader: a process of `_REFERENCES` labels at most, whose deviation is the spread.
    """

    labels: int
    prediction: np.ndarray
    spreader: Fitted


def describe(data: Dataset) -> np.ndarray:
    """Returns the descriptors of crystals, float32 [crystals, columns]."""
    return descriptors_of(data.graphs).astype(np.float32)


def fit_baseline(data: Prepared, column: int) -> Baseline | None:
    """Returns the baseline of a property, None with fewer than two labels.

    Args:
        data: the data sets; training and validation labels are both labels.
        column: of the property.
    """
    parts = [data.datasets[part] for part in ("train", "validation")]
    target = np.concatenate([part.target[:, column] for part in parts])
    labelled = np.flatnonzero(~np.isnan(target))
    if len(labelled) < 2:
        return None
    inputs, target = np.concatenate([describe(p) for p in parts])[labelled], target[labelled]
    order = np.random.default_rng(_SEED).permutation(len(target))
    some, few = order[:MOST_LABELS], order[:_REFERENCES]
    whole = spreader = fit(inputs[some], target[some], descriptor_blocks())
    if len(some) > len(few):
        spreader = fit(inputs[few], target[few], descriptor_blocks())
    prediction = _posterior(whole, data.datasets["test"])[0]
    return Baseline(len(some), prediction, spreader)


def spread_of(baseline: Baseline | None, data: Dataset) -> np.ndarray:
    """Returns the spreads of crystals, 1 without a baseline, [crystals]."""
    if baseline is None:
        return np.ones(len(data.graphs))
    return _posterior(baseline.spreader, data)[1].astype(np.float64)


def _posterior(fitted: Fitted, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `posterior` returns; few crystals are held against the labels at a time."""
    inputs = describe(data)
    parts = [inputs[i : i + _AT_ONCE] for i in range(0, max(len(inputs), 1), _AT_ONCE)]
    means, deviations = zip(*(posterior(fitted.process, part) for part in parts), strict=True)
    return np.concatenate(means), np.concatenate(deviations)


def calibrate(
    baseline: Baseline, validation: Dataset, prediction: np.ndarray, column: int
) -> dict[str, Any]:
    """Returns the calibration of a network's intervals; see `jaxmat.bundles.bundle.make_about`.

    On the errors of the validation part where these are enough. Otherwise on the baseline's
    leave-one-out errors: the network is taken to be no worse.

    Args:
        baseline: of the property.
        validation: crystals that the network was not trained on.
        prediction: of these, scaled, [crystals].
        column: of the property.
    """
    target, spread = validation.target[:, column], spread_of(baseline, validation)
    known = np.isfinite(target) & np.isfinite(prediction)
    method, errors = "validation", np.abs(target - prediction)[known]
    spreads = spread[known]
    if len(errors) < _ENOUGH:
        method, fitted = "leave-one-out of the descriptors", baseline.spreader
        errors, spreads = np.abs(fitted.target - fitted.mean), fitted.deviation
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
