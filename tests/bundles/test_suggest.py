"""What to label next: the unsure, the promising, and not the same thing twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxmat.bundles.predict import Forecast
from jaxmat.bundles.suggest import Goal, expected_improvement, parse_goal, suggest
from jaxmat.errors import UserError

NONE = np.zeros((0, 2))


def forecast(id: str, prediction: float, half: float) -> Forecast:
    ends = (prediction - half, prediction + half)
    return Forecast(id, "gap", prediction, "eV", half, *ends, "", "")


def ids(found: list) -> list[str]:
    return [one.id for one in found]


def test_the_least_sure_come_first_and_crystals_like_them_later() -> None:
    forecasts = [forecast("sure", 1, 0.1), forecast("unsure", 1, 2.0), forecast("twin", 1, 1.9)]
    forecasts.append(forecast("other", 1, 1.0))
    descriptors = np.array([[0, 0], [5, 5], [5.2, 5], [-5, 5.0]])
    found = suggest(forecasts, descriptors, NONE, 4, None)
    assert ids(found) == ["unsure", "other", "twin", "sure"]
    assert [one.rank for one in found] == [1, 2, 3, 4]
    assert found[0].score == 2.0 and found[2].score < 1.0


def test_labelled_and_equal_crystals_are_passed_over() -> None:
    forecasts = [forecast("a", 1, 3.0), forecast("same as a", 1, 2.9), forecast("b", 1, 1.0)]
    descriptors = np.array([[0, 1], [0, 1], [3, 3.0]])
    assert ids(suggest(forecasts, descriptors, NONE, 3, None)) == ["a", "b"]
    assert ids(suggest(forecasts, descriptors, descriptors[:1], 3, None)) == ["b"]
    with pytest.raises(UserError, match="has a label already"):
        suggest(forecasts, descriptors, descriptors, 3, None)


def test_expected_improvement_is_the_closed_form_of_normal_labels() -> None:
    prediction, deviation, best = np.array([1.0, 2.0]), np.array([0.5, 0.1]), 1.5
    half = 1.6448536 * deviation
    found = expected_improvement(
        prediction, prediction - half, prediction + half, Goal("maximum", math.nan, best)
    )
    z = (prediction - best) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    share = np.array([0.5 * (1 + math.erf(each / math.sqrt(2))) for each in z])
    np.testing.assert_allclose(found, deviation * (z * share + density), rtol=0.03)


def test_goals_are_a_maximum_a_minimum_or_a_value() -> None:
    forecasts = [forecast("low", 1, 0.2), forecast("middle", 5, 0.2), forecast("high", 9, 0.2)]
    descriptors = np.array([[0, 0], [1, 1], [2, 2.0]])
    for text, best, first in (("maximum", 6, "high"), ("minimum", 4, "low"), ("5.1", 7, "middle")):
        assert ids(suggest(forecasts, descriptors, NONE, 1, parse_goal(text, best))) == [first]


@pytest.mark.parametrize(
    ("text", "best", "message"),
    [("large", 1.0, "use maximum, minimum"), ("nan", 1.0, "use max"), ("maximum", None, "--best")],
)
def test_a_goal_that_is_none_is_named(text: str, best: float | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_goal(text, best)


def test_a_model_without_intervals_cannot_suggest() -> None:
    with pytest.raises(UserError, match="no intervals"):
        suggest([forecast("a", 1, math.nan)], np.zeros((1, 2)), NONE, 1, None)
