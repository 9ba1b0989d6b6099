"""Which crystals to label next: those that tell most about all others, or those that may be better.

Suggestions are made one by one, and each lowers what is to be learned from crystals like it, so
that they are diverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from jaxmat.bundles.intervals import LEVEL
from jaxmat.bundles.predict import Forecast
from jaxmat.errors import UserError
from jaxmat.models.gaussian_process import standardized
from jaxmat.values import written_number

_STANDARD_DEVIATIONS = NormalDist().inv_cdf((1 + LEVEL) / 2)
# Of the integral over what a label may be, in standard deviations.
_NODES, _TAIL = 401, 10.0
# Two crystals are the same if no descriptor, most of which are logarithms, differs by more than
# this plus this share of it.
_SAME = 2e-4


class Goal(NamedTuple):
    """What labels are sought.

    Attributes:
        kind: "maximum", "minimum", or "value" for labels near one.
        value: of the last kind, in the unit.
        best: the best label so far, in the unit.
    """

    kind: str
    value: float
    best: float

    def gain(self, labels: np.ndarray) -> np.ndarray:
        """Returns by how much labels are better than the best so far, 0 where they are not."""
        merit = {
            "maximum": lambda y: y,
            "minimum": lambda y: -y,
            "value": lambda y: -np.abs(y - self.value),
        }[self.kind]
        return np.maximum(merit(labels) - merit(np.float64(self.best)), 0)


class Suggestion(NamedTuple):
    """A crystal to label.

    Attributes:
        rank: 1 for the first.
        id: of the input.
        property: its name.
        prediction: in `unit`.
        low, high: ends of the interval about it, in `unit`.
        unit: of the property.
        score: share of the variance of all candidates that its label takes away; with a goal the
            expected improvement, in `unit`, times the share that the suggestions before leave.
    """

    rank: int
    id: str
    property: str
    prediction: float
    low: float
    high: float
    unit: str
    score: float


def parse_goal(text: str, best: float | None) -> Goal | None:
    """Returns the goal that a user has written, None for "": to learn most.

    Args:
        text: "", "maximum", "minimum" or a number.
        best: the best label so far.

    Raises:
        UserError: it is none of them, or the best label is no number, not given, or given
            without a goal.
    """
    if not text:
        if best is not None:
            raise UserError("--best is for --goal; without a goal no label is the best.")
        return None
    kind, value = text, np.nan
    if text not in ("maximum", "minimum"):
        kind, number = "value", written_number(text)
        value = np.nan if number is None else number
        if not np.isfinite(value):
            raise UserError(f"--goal is {text!r}; use maximum, minimum or a number.")
    if best is None:
        raise UserError("With --goal give the best label that you have, too: --best=NUMBER.")
    if not np.isfinite(best):
        raise UserError(f"--best is {best}; give the best label that you have.")
    if best == value:
        raise UserError(f"--best is {best:g}, the goal itself: no label can be better.")
    return Goal(kind, float(value), best)


def suggest(
    forecasts: Sequence[Forecast],
    descriptors: np.ndarray,
    labelled: np.ndarray,
    number: int,
    goal: Goal | None,
    covariance: np.ndarray,
) -> list[Suggestion]:
    """Returns crystals to label, the best first; with a goal only those that may be better.

    Args:
        forecasts: of the candidates, of one property, all predicted.
        descriptors: of the candidates, [candidates, columns].
        labelled: of crystals that have a label already, [crystals, columns]; equal candidates are
            passed over, and so are those that are in `forecasts` twice.
        number: of suggestions.
        goal: improvement towards it is sought; None: to learn most.
        covariance: of the candidates' values, see `posterior_covariance`, [candidates, candidates];
            its last row and column are the noise.

    Raises:
        UserError: the model gives no intervals, all candidates have labels, or none may be better.
    """
    prediction, low, high = (
        np.array([getattr(forecast, name) for forecast in forecasts], float)
        for name in ("prediction", "low", "high")
    )
    if not np.isfinite(high - low).all():
        raise UserError("The model gives no intervals: it does not know how unsure it is.")
    free = ~_near(descriptors, labelled)
    if not free.any():
        raise UserError("Every candidate has a label already.")
    worth = None
    if goal is not None:
        worth = expected_improvement(prediction, low, high, goal)
        free &= worth > 0
        if not free.any():
            unit = forecasts[0].unit
            best = f"{goal.best:g}" + ("" if unit == "1" else f" {unit}")
            raise UserError(
                f"No candidate is expected to be better than {best}: look at --best and its unit."
            )
    noise, left = covariance[-1, -1], covariance[:-1, :-1]
    total, before = np.trace(left), np.maximum(np.diag(left), 1e-12)
    found: list[Suggestion] = []
    while len(found) < number and free.any():
        variance = np.maximum(np.diag(left), 0) + noise
        if worth is None:
            score = (left**2).sum(axis=0) / variance / total
        else:
            score = worth * np.sqrt(np.maximum(np.diag(left), 0) / before)
        i = int(np.where(free, score, -np.inf).argmax())
        one = forecasts[i]
        numbers = (float(prediction[i]), float(low[i]), float(high[i]))
        found.append(
            Suggestion(len(found) + 1, one.id, one.property, *numbers, one.unit, float(score[i]))
        )
        left = left - np.outer(left[:, i], left[i]) / variance[i]
        free &= ~_near(descriptors, descriptors[i : i + 1])
        free[i] = False
    return found


def posterior_covariance(process: Mapping[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Returns how far the values of crystals vary together, given the labels of a process.

    A new label of one crystal lowers this by the product of its row and column over its variance,
    which does not depend on the label. What lowers the variance of all candidates most is
    suggested (Cohn, Ghahramani and Jordan, J. Artif. Intell. Res. 4, 129, 1996).

    Args:
        process: arrays of a process on descriptors, see `jaxmat.models.gaussian_process`.
        inputs: descriptors, [crystals, columns].

    Returns:
        In units of the variance of the process, [crystals + 1, crystals + 1]; the last row and
        column are zero but for the noise at their end.
    """
    arrays = {name: np.asarray(values, np.float64) for name, values in process.items()}
    new, old = standardized(arrays, inputs), arrays["inputs"]
    whitened = _kernel(new, old) @ arrays["whitener"].T
    covariance = np.zeros((len(new) + 1, len(new) + 1))
    covariance[:-1, :-1] = _kernel(new, new) - whitened @ whitened.T
    covariance[-1, -1] = arrays["noise"]
    return covariance


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    distance = np.sqrt(3 * np.maximum(squares, 0))
    return (1 + distance) * np.exp(-distance)


def expected_improvement(
    prediction: np.ndarray, low: np.ndarray, high: np.ndarray, goal: Goal
) -> np.ndarray:
    """Returns the expected improvement over the best label (Jones et al., J. Glob. Optim. 1998).

    The label is taken to be normal on either side of the prediction, as wide as the interval there.

    Args:
        prediction: in the unit, [candidates].
        low: lower ends of the intervals, [candidates].
        high: upper ends.
        goal: what is sought.
    """
    # Far into the tails, so that what is out of reach by a little more than others comes later.
    deviations = np.linspace(-_TAIL, _TAIL, _NODES)
    weights = np.exp(-(deviations**2) / 2)
    side = np.where(deviations < 0, (prediction - low)[:, None], (high - prediction)[:, None])
    labels = prediction[:, None] + deviations / _STANDARD_DEVIATIONS * side
    return goal.gain(labels) @ (weights / weights.sum())


def _near(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns which points are the same as some other, bool [points]."""
    near = np.zeros(len(points), bool)
    for other in others:
        near |= np.isclose(points, other, rtol=_SAME, atol=_SAME).all(axis=1)
    return near
