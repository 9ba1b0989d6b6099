from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmat.transfer.averages import finish, interpolate, mean
from jaxmat.transfer.strategies import STRATEGIES, Strategy

FLOATS = arrays(np.float32, 3, elements=st.floats(-1e3, 1e3, width=32))
SOURCE = {"trunk": {"a": np.float32([1.0, 2.0])}}


def make_variables(value):
    return {
        "params": {"trunk": {"a": np.float32([value, 2.0])}, "head": np.float32([10 * value])},
        "batch_stats": {"trunk": np.float32([100 * value])},
    }


@given(FLOATS, FLOATS, st.floats(0, 1))
def test_ends_and_equal_leaves_are_exact_and_new_heads_stay(start, end, factor):
    tuned = {"trunk": {"a": end, "b": start}, "head": end}
    source = {"trunk": {"a": start, "b": start}}
    for at, expected in ((0.0, start), (1.0, end)):
        np.testing.assert_array_equal(interpolate(source, tuned, at)["trunk"]["a"], expected)
    between = interpolate(source, tuned, factor)
    np.testing.assert_array_equal(between["trunk"]["b"], start)
    np.testing.assert_array_equal(between["head"], end)
    straight = (1 - factor) * start.astype(float) + factor * end.astype(float)
    np.testing.assert_allclose(between["trunk"]["a"], straight, rtol=1e-5, atol=1e-3)


@given(st.lists(FLOATS, min_size=1, max_size=6))
def test_the_mean_is_the_mean_and_equal_members_are_it_exactly(rows):
    trees = [{"varied": row, "same": rows[0]} for row in rows]
    result = mean(iter(trees))
    np.testing.assert_allclose(result["varied"], np.mean(rows, 0, float), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(result["same"], rows[0])


def run(strategy, members, errors, source=SOURCE):
    """Finishes with errors that depend on the first weight, and statistics that show it, too."""
    asked = []

    def evaluate(variables):
        asked.append(variables)
        return errors(float(variables["params"]["trunk"]["a"][0]))

    def reestimate(variables):
        return {"trunk": 7 * variables["params"]["trunk"]["a"]}

    return finish(strategy, source, members, evaluate=evaluate, reestimate=reestimate), asked


def test_the_factor_with_the_least_error_is_taken_with_statistics_of_its_own():
    tuned = make_variables(2.0)
    finished, asked = run(STRATEGIES["interpolation"], [tuned], lambda a: abs(a - 1.31))
    assert finished.factor == 0.3 and len(asked) == 11
    params = finished.variables["params"]
    np.testing.assert_allclose(params["trunk"]["a"], [1.3, 2.0], rtol=1e-6)
    np.testing.assert_array_equal(params["head"], tuned["params"]["head"])
    np.testing.assert_array_equal(
        finished.variables["batch_stats"]["trunk"], 7 * params["trunk"]["a"]
    )


def test_tuned_weights_stay_what_they_are_where_nothing_is_better():
    tuned = make_variables(2.0)
    for errors in (lambda a: 1.0, lambda a: -a, lambda a: float("nan")):
        finished, _ = run(STRATEGIES["interpolation"], [tuned], errors)
        assert finished.factor == 1 and finished.variables is tuned
    finished, asked = run(Strategy(), [tuned], lambda a: 5.0)
    assert finished == (tuned, 1.0) and len(asked) == 1


def test_a_value_that_is_no_number_is_not_chosen():
    finished, _ = run(
        Strategy(interpolation=(0.0, 0.5, 1.0)),
        [make_variables(2.0)],
        lambda a: float("nan") if a > 1.9 else a,
    )
    assert finished.factor == 0


def test_members_are_averaged_with_statistics_of_their_own_and_then_interpolated():
    members = [make_variables(value) for value in (2.0, 4.0, 6.0)]
    finished, _ = run(STRATEGIES["soup"], members, lambda a: a)
    np.testing.assert_array_equal(finished.variables["params"]["trunk"]["a"], [4.0, 2.0])
    np.testing.assert_array_equal(finished.variables["params"]["head"], [40.0])
    np.testing.assert_array_equal(finished.variables["batch_stats"]["trunk"], [28.0, 14.0])
    halfway, _ = run(Strategy(members=3, interpolation=(0.5,)), members, lambda a: a)
    np.testing.assert_array_equal(halfway.variables["params"]["trunk"]["a"], [2.5, 2.0])
    np.testing.assert_array_equal(halfway.variables["params"]["head"], [40.0])


def test_a_source_that_is_not_part_of_the_network_is_no_silent_nothing():
    with pytest.raises(KeyError, match="params/trunk/a"):
        interpolate({"params": SOURCE}, make_variables(1.0)["params"], 0.5)
