from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmat.training.metrics import (
    conformal_half_width,
    regression_metrics,
    unit_and_scaled_metrics,
)


def test_a_case_done_by_hand():
    target = np.array([1.0, np.nan, 2.0, 6.0])
    prediction = np.array([2.0, 7.0, 2.0, 4.0])
    metrics = regression_metrics(target, prediction)
    assert metrics == pytest.approx({"mae": 1.0, "rmse": (5 / 3) ** 0.5, "r2": 1 - 5 / 14})


@pytest.mark.parametrize("target", [[], [np.nan], [2.0], [0.1, 0.1, 0.1], [0.0, 1e-200]])
def test_r2_is_undefined_without_spread(target):
    metrics = regression_metrics(np.array(target), np.zeros(len(target)))
    assert np.isnan(metrics["r2"])
    assert np.isnan(metrics["mae"]) == (not np.isfinite(target).any())


def test_a_diverged_network_does_not_look_good():
    metrics = regression_metrics(np.array([1.0, 2.0]), np.array([1.0, np.nan]))
    assert np.isnan(list(metrics.values())).all()


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1), st.randoms())
def test_errors_are_ordered_and_the_order_of_crystals_is_not_seen(pairs, random):
    target, prediction = np.array(pairs).T
    metrics = regression_metrics(target, prediction)
    assert 0 <= metrics["mae"] <= metrics["rmse"] * (1 + 1e-9) + 1e-150  # squares underflow
    random.shuffle(pairs)
    shuffled = regression_metrics(*np.array(pairs).T)
    assert metrics["mae"] == pytest.approx(shuffled["mae"])
    assert metrics["rmse"] == pytest.approx(shuffled["rmse"])


def test_unit_metrics_scale_and_r2_does_not():
    class Halved:
        def to_unit(self, scaled):
            return scaled * 2.0 + 10.0

    rng = np.random.default_rng(0)
    target, prediction = rng.normal(size=(2, 20))
    both = unit_and_scaled_metrics(target, prediction, Halved())
    assert both["unit"]["mae"] == pytest.approx(2 * both["scaled"]["mae"])
    assert both["unit"]["rmse"] == pytest.approx(2 * both["scaled"]["rmse"])
    assert both["unit"]["r2"] == pytest.approx(both["scaled"]["r2"])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=10, max_size=60, unique_by=abs),
    st.sampled_from([0.5, 0.8, 0.9]),
)
def test_as_many_labels_as_promised_lie_within_the_interval_of_the_others(errors, level):
    errors = np.array(errors)
    inside = 0
    for left_out in range(len(errors)):
        others = np.delete(errors, left_out)
        inside += abs(errors[left_out]) <= conformal_half_width(others, 0 * others, level)
    assert level <= inside / len(errors) <= level + 1 / len(errors)


def test_too_few_labels_have_no_interval():
    label = np.append(np.arange(9.0), np.nan)
    assert conformal_half_width(label, np.zeros(10), 0.9) == 8.0
    assert conformal_half_width(label[1:], np.zeros(9), 0.9) is None
    assert conformal_half_width(np.zeros(0), np.zeros(0), 0.9) is None


def test_a_diverged_network_has_no_interval():
    assert conformal_half_width(np.zeros(9), np.full(9, np.nan), 0.9) is None
