"""Intervals and components of variance: against scipy, by hand, and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxmat.report.study.statistics import (
    Errors,
    bootstrap_change,
    paired_change,
    spread_components,
)

positive = st.floats(0.01, 100)


@given(pairs=st.lists(st.tuples(positive, positive), min_size=2, max_size=6, unique=True))
def test_paired_change_is_the_paired_t_interval_of_logarithms(
    pairs: list[tuple[float, float]],
) -> None:
    ours, baseline = zip(*pairs, strict=True)
    difference = np.log(ours) - np.log(baseline)
    if np.std(difference) < 1e-6:
        return
    expected = stats.ttest_rel(np.log(ours), np.log(baseline)).confidence_interval(0.95)

    change = paired_change(ours, baseline)
    assert np.log1p(change.change) == pytest.approx(np.mean(difference), abs=1e-9)
    np.testing.assert_allclose(change[1:], np.expm1(expected), rtol=1e-6)


def test_change_of_one_trial_has_no_interval() -> None:
    change = paired_change([0.5], [2.0])
    assert change.change == pytest.approx(-0.75)
    assert math.isnan(change.low) and math.isnan(change.high)


def test_one_diverged_baseline_does_not_outweigh_the_rest() -> None:
    # a mean of relative changes of the mean error would be near -1
    assert paired_change([1.0, 1.0, 1.0], [1.0, 1.0, 1000.0]).change == pytest.approx(-0.9)


def errors(values: np.ndarray, start: int = 0) -> Errors:
    return Errors(tuple(f"c{start + i}" for i in range(len(values))), values)


def test_bootstrap_agrees_with_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    ours, baseline = draw.exponential(1.0, 60), draw.exponential(1.5, 60)

    def change(ours: np.ndarray, baseline: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(ours, axis) / np.mean(baseline, axis) - 1

    expected = stats.bootstrap(
        (ours, baseline), change, paired=True, method="percentile", rng=1
    ).confidence_interval
    result = bootstrap_change([(errors(ours), errors(baseline))])
    assert result.change == pytest.approx(ours.mean() / baseline.mean() - 1)
    np.testing.assert_allclose(result[1:], expected, atol=0.03)


def test_bootstrap_pairs_crystals_by_id() -> None:
    draw = np.random.default_rng(0)
    values, other = draw.exponential(1.0, (2, 30))
    ours = errors(values)
    shuffled = draw.permutation(30)
    twice = Errors(tuple(np.array(ours.ids)[shuffled]), 2 * values[shuffled])
    # Twice the error on every crystal: whichever are drawn, half as much.
    np.testing.assert_allclose(bootstrap_change([(ours, twice)]), [-0.5] * 3)
    # Crystals that only one of the two was tested on say nothing.
    more = Errors((*twice.ids, "x"), np.append(twice.error, 1e6))
    assert bootstrap_change([(ours, more)]) == bootstrap_change([(ours, twice)])
    assert math.isnan(bootstrap_change([(ours, errors(other, start=50))]).change)


def test_bootstrap_holds_trials_with_other_crystals_apart() -> None:
    one, two = np.array([1.0, 3.0]), np.array([5.0, 5.0])
    pairs = [(errors(one), errors(2 * one)), (errors(two, 7), errors(8 * two, 7))]
    assert bootstrap_change(pairs).change == pytest.approx(1 / 4 - 1)


def test_components_of_variance_by_hand() -> None:
    # Within trials: squares 2 + 2 over 2 degrees of freedom; between: means 1 and 5, so
    # 2 * (4 + 4) / 1 = 16, of which one seed spread is 2 and twice the sample's 14.
    sample, seed = spread_components([[0.0, 2.0], [4.0, 6.0]])
    assert (sample, seed) == (pytest.approx(7**0.5), pytest.approx(2**0.5))


def test_components_of_variance_find_what_made_the_numbers() -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 5, 4000)
    trials = [draw.normal(draw.normal(0, 3), 2, size) for size in sizes]
    np.testing.assert_allclose(spread_components(trials), [3, 2], rtol=0.05)


def test_components_that_the_runs_do_not_identify() -> None:
    assert all(map(math.isnan, spread_components([[1.0], [2.0]])))
    assert all(map(math.isnan, spread_components([])))
    sample, seed = spread_components([[1.0, 3.0]])
    assert math.isnan(sample) and seed == pytest.approx(2**0.5)
    assert spread_components([[0.0, 9.0], [4.0, 5.0]])[0] == 0.0
