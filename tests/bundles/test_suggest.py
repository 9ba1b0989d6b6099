"""What to label next: the unsure, the promising, and not the same thing twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxmat.bundles.predict import Forecast
from jaxmat.bundles.suggest import (
    Goal,
    expected_improvement,
    parse_goal,
    posterior_covariance,
    suggest,
)
from jaxmat.errors import UserError
from jaxmat.models.gaussian_process import posterior
from jaxmat.training.gaussian_process import fit

NONE = np.zeros((0, 2))


def forecast(id: str, prediction: float, half: float) -> Forecast:
    ends = (prediction - half, prediction + half)
    return Forecast(id, "gap", prediction, "eV", half, *ends, "", "")


def ids(found: list) -> list[str]:
    return [one.id for one in found]


def covariance(variances: list[float], twins: tuple[int, int] | None = None) -> np.ndarray:
    """Of independent values, but for two that go together; the noise is small."""
    found = np.diag([*variances, 0.01])
    if twins:
        i, k = twins
        found[i, k] = found[k, i] = 0.95 * np.sqrt(variances[i] * variances[k])
    return found


def test_what_tells_most_of_others_comes_first_and_what_is_like_it_last() -> None:
    forecasts = [forecast(id, 1, 1.0) for id in ("sure", "unsure", "twin", "other")]
    descriptors = np.array([[0, 0], [5, 5], [5.2, 5], [-5, 5.0]])
    found = suggest(forecasts, descriptors, NONE, 4, None, covariance([0.1, 1, 0.9, 1.2], (1, 2)))
    # The unsure one tells of its twin, too; then nothing is left to learn from that.
    assert ids(found) == ["unsure", "other", "sure", "twin"]
    assert [one.rank for one in found] == [1, 2, 3, 4]
    assert found[0].score == pytest.approx((1 + 0.95**2 * 0.9) / 1.01 / 3.2, rel=1e-6)


def test_the_covariance_is_the_posteriors() -> None:
    rng = np.random.default_rng(0)
    inputs, target = rng.normal(size=(30, 4)), rng.normal(size=30)
    process = fit(inputs, target, (4,)).process
    new = rng.normal(size=(5, 4)).astype(np.float32)
    found = posterior_covariance(process, new)
    _, deviation = posterior(process, new)
    variance = process["variance"] * (np.diag(found)[:-1] + found[-1, -1])
    np.testing.assert_allclose(np.sqrt(variance), deviation, rtol=1e-3)
    assert not found[-1, :-1].any()


def test_labelled_and_equal_crystals_are_passed_over() -> None:
    forecasts = [forecast("a", 1, 3.0), forecast("same as a", 1, 2.9), forecast("b", 1, 1.0)]
    descriptors = np.array([[0, 1], [0, 1], [3, 3.0]])
    among = covariance([1.0, 0.9, 0.5])
    assert ids(suggest(forecasts, descriptors, NONE, 3, None, among)) == ["a", "b"]
    assert ids(suggest(forecasts, descriptors, descriptors[:1], 3, None, among)) == ["b"]
    with pytest.raises(UserError, match="has a label already"):
        suggest(forecasts, descriptors, descriptors, 3, None, among)


@pytest.mark.parametrize("equal", [1, 2])
def test_candidates_that_are_all_equal_are_told_from_what_has_a_label(equal: int) -> None:
    """Nothing told them apart from any crystal: every one counted as labelled."""
    forecasts = [forecast(str(i), 1, 1.0) for i in range(equal)]
    descriptors, among = np.full((equal, 2), 2.0), covariance([1.0] * equal)
    found = suggest(forecasts, descriptors, np.array([[2, 2.1]]), 3, None, among)
    assert ids(found) == ["0"]
    with pytest.raises(UserError, match="has a label already"):
        suggest(forecasts, descriptors, np.array([[2, 2.0001]]), 3, None, among)


def test_what_cannot_be_better_is_not_suggested() -> None:
    """Crystals with the score 0 were named in the order of the input."""
    forecasts = [forecast("low", 1, 0.1), forecast("high", 9, 1.0)]
    descriptors, among = np.array([[0, 0], [1, 1.0]]), covariance([1.0, 1.0])
    found = suggest(forecasts, descriptors, NONE, 2, Goal("maximum", math.nan, 9.5), among)
    assert ids(found) == ["high"] and found[0].score > 0
    with pytest.raises(UserError, match="better than 1000 eV: look at --best and its unit"):
        suggest(forecasts, descriptors, NONE, 2, Goal("maximum", math.nan, 1000), among)


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
        goal = parse_goal(text, best)
        found = suggest(forecasts, descriptors, NONE, 1, goal, covariance([1.0, 1.0, 1.0]))
        assert ids(found) == [first]


@pytest.mark.parametrize(
    ("text", "best", "message"),
    [
        ("large", 1.0, "use maximum, minimum"),
        ("nan", 1.0, "use max"),
        ("maximum", None, "give the best label that you have, too"),
        ("maximum", math.inf, "--best is inf"),
        ("", 3.0, "--best is for --goal"),
        ("310", 310.0, "the goal itself"),
    ],
)
def test_a_goal_that_is_none_is_named(text: str, best: float | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_goal(text, best)


def test_a_model_without_intervals_cannot_suggest() -> None:
    with pytest.raises(UserError, match="no intervals"):
        suggest([forecast("a", 1, math.nan)], np.zeros((1, 2)), NONE, 1, None, covariance([1.0]))
