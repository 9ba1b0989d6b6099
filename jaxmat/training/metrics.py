"""How well predictions fit: errors in the property's unit and in scaled units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import stats


class Transform(Protocol):
    """What takes scaled targets of one property back to its unit."""

    def to_unit(self, scaled: np.ndarray) -> np.ndarray:
        """Returns scaled values in the unit of the property."""


def regression_metrics(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Mean absolute error, root mean squared error and coefficient of determination.

    Args:
        target: labels of one property, NaN where missing, [crystals].
        prediction: in the same unit, [crystals]. A NaN beside a label makes all three NaN: a
            network that has diverged must not look good on the crystals it still predicts.

    Returns:
        {"mae", "rmse", "r2"} over the labelled crystals. r2 is NaN for fewer than two of them
        or for equal labels; all are NaN for none.
    """
    labelled = ~np.isnan(target)
    label = np.asarray(target, np.float64)[labelled]
    error = np.asarray(prediction, np.float64)[labelled] - label
    if label.size == 0:
        return {"mae": np.nan, "rmse": np.nan, "r2": np.nan}
    square = float(np.mean(error**2))
    # Rounding may leave equal labels a variance, and underflow may take it from unequal ones.
    variance = float(np.var(label)) if np.ptp(label) > 0 else 0.0
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": square**0.5,
        "r2": 1.0 - square / variance if variance > 0 else np.nan,
    }


def conformal_half_width(target: np.ndarray, prediction: np.ndarray, level: float) -> float | None:
    """Half width of an interval about predictions that holds new labels with a probability.

    Split conformal prediction: the ceil((n + 1) level)-th smallest of n absolute errors (Lei et
    al., J. Am. Stat. Assoc. 113, 1094, 2018). It holds for crystals like those of the errors, and
    is a little narrow where these have chosen the checkpoint, too.

    Args:
        target: labels that were not trained on, NaN where missing, [crystals].
        prediction: in the same unit, [crystals].
        level: the probability.

    Returns:
        The half width, or None where there are too few labels for the level, or predictions that
        are not finite among those that it needs.
    """
    error = np.sort(np.abs(target - prediction)[~np.isnan(target)])  # NaN comes last
    rank = math.ceil((len(error) + 1) * level)
    return float(error[rank - 1]) if rank <= len(error) and np.isfinite(error[rank - 1]) else None


def conformal_factor(error: np.ndarray, level: float) -> float:
    """What a spread is multiplied by, that the interval holds new labels with a probability.

    As `conformal_half_width` for errors over spreads (Lei et al. 2018, section 5.2). With too few
    errors for the level it is the largest of n, and the probability lower: n / (n + 1).

    Args:
        error: absolute errors over spreads, finite, at least one, [crystals].
        level: the probability.
    """
    rank = math.ceil((len(error) + 1) * level)
    return float(np.sort(error)[min(rank, len(error)) - 1])


def grouped_conformal_factor(groups: Sequence[np.ndarray], level: float) -> float:
    """As `conformal_factor` for errors in groups, where the next one is of another group.

    Each group counts alike, however many errors it has: the least number that holds errors of the
    weight `level`, where each of k groups has the weight 1 / (k + 1) (Lee, Barber and Willett,
    arXiv 2306.06342, section 3). It takes level / (1 - level) groups, 9 for 0.9.

    Args:
        groups: absolute errors over spreads, finite, at least one, [crystals] each.
        level: the probability.

    Raises:
        ValueError: too few groups for the level.
    """
    weight = np.concatenate([np.full(len(g), 1 / len(g)) for g in groups]) / (len(groups) + 1)
    errors = np.concatenate(groups)
    order = np.argsort(errors, kind="stable")
    enough = np.flatnonzero(np.cumsum(weight[order]) >= level - 1e-9)
    if not len(enough):
        raise ValueError(f"{len(groups)} groups are too few for the level {level}")
    return float(errors[order[enough[0]]])


def paired_difference(error: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns the mean difference of errors on the same crystals and its 95 % half width.

    By Student's t over crystals; the half width is infinite for a single one.

    Args:
        error: absolute errors, [crystals].
        other: of what it is compared with, [crystals].
    """
    difference = error - other
    n = len(difference)
    if n < 2:
        return float(np.mean(difference)), math.inf
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(difference, ddof=1)) / math.sqrt(n)
    return float(np.mean(difference)), half


def unit_and_scaled_metrics(
    target: np.ndarray, prediction: np.ndarray, transform: Transform
) -> dict[str, dict[str, float]]:
    """The metrics of one property, in its unit and scaled as the network sees it.

    Args:
        target: scaled labels, NaN where missing, [crystals].
        prediction: scaled predictions, [crystals].
        transform: the scaling of the property.

    Returns:
        {"unit": metrics, "scaled": metrics}, each as from `regression_metrics`.
    """
    return {
        "unit": regression_metrics(transform.to_unit(target), transform.to_unit(prediction)),
        "scaled": regression_metrics(target, prediction),
    }
