"""Which crystals to label next: those a model is unsure of, or those that may be better.

Suggestions are made one by one, and each lowers what is to be learned from crystals like it, so
that they are diverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from jaxmat.bundles.intervals import LEVEL
from jaxmat.bundles.predict import Forecast
from jaxmat.errors import UserError

_STANDARD_DEVIATIONS = NormalDist().inv_cdf((1 + LEVEL) / 2)
# Of the integral over what a label may be, in standard deviations.
_NODES, _TAIL = 401, 10.0
# Two crystals whose standardised descriptors differ by no more are the same.
_SAME = 1e-3


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
        score: half the width of the interval, or the expected improvement, in `unit`, times the
            share that the crystals suggested before leave of it.
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
        UserError: it is none of them, or the best label is not given.
    """
    if not text:
        return None
    kind, value = text, np.nan
    if text not in ("maximum", "minimum"):
        try:
            kind, value = "value", float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise UserError(f"--goal is {text!r}; use maximum, minimum or a number.")
    if best is None or not np.isfinite(best):
        raise UserError("With --goal give the best label that you have, too: --best=NUMBER.")
    return Goal(kind, float(value), best)


def suggest(
    forecasts: Sequence[Forecast],
    descriptors: np.ndarray,
    labelled: np.ndarray,
    number: int,
    goal: Goal | None,
) -> list[Suggestion]:
    """Returns crystals to label, the best first.

    Args:
        forecasts: of the candidates, of one property, all predicted.
        descriptors: of the candidates, [candidates, columns].
        labelled: of crystals that have a label already, [crystals, columns]; equal candidates are
            passed over, and so are those that are in `forecasts` twice.
        number: of suggestions.
        goal: improvement towards it is sought; None: large variance.

    Raises:
        UserError: the model gives no intervals, or all candidates have labels.
    """
    prediction, low, high = (
        np.array([getattr(forecast, name) for forecast in forecasts], float)
        for name in ("prediction", "low", "high")
    )
    if not np.isfinite(high - low).all():
        raise UserError("The model gives no intervals: it does not know how unsure it is.")
    worth = (high - low) / 2
    if goal is not None:
        worth = expected_improvement(prediction, low, high, goal)
    spread = descriptors.std(axis=0)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0)
    points, known = descriptors * scale, labelled * scale
    free = ~_near(points, known)
    if not free.any():
        raise UserError("Every candidate has a label already.")
    left = np.ones(len(points))
    found: list[Suggestion] = []
    while len(found) < number and free.any():
        score = np.where(free, worth * left, -np.inf)
        i = int(score.argmax())
        one = forecasts[i]
        numbers = (float(prediction[i]), float(low[i]), float(high[i]))
        found.append(
            Suggestion(len(found) + 1, one.id, one.property, *numbers, one.unit, float(score[i]))
        )
        distance = np.sqrt(3 * np.mean((points - points[i]) ** 2, axis=1))
        likeness = (1 + distance) * np.exp(-distance)  # Matérn's kernel, as the processes have
        left = left * np.sqrt(np.maximum(1 - likeness**2, 0))
        free &= ~_near(points, points[i : i + 1])
        free[i] = False
    return found


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
        near |= np.abs(points - other).max(axis=1) < _SAME
    return near
