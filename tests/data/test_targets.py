"""Scaled targets: there and back, the published formula, and nothing silent."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmat.data.splits import Split
from jaxmat.data.targets import (
    TargetTransform,
    fit_transform,
    magnitude_shift,
    scaling_labels,
    unit_mismatch,
)
from jaxmat.errors import UserError


def fit(values: object, scaling: str = "standard", log: bool = False) -> TargetTransform:
    labels = np.asarray(values, dtype=np.float64)
    return fit_transform(labels, name="gap", unit="eV", scaling=scaling, log=log)


LABELS = arrays(
    np.float64, st.integers(2, 20), elements=st.floats(0.001, 1000), unique=True
).filter(lambda labels: np.ptp(labels) > 1e-3)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, scaling=st.sampled_from(["standard", "minmax"]), log=st.booleans())
def test_there_and_back(labels: np.ndarray, scaling: str, log: bool) -> None:
    transform = fit(labels, scaling, log)
    scaled = transform.to_scaled(labels)
    np.testing.assert_allclose(transform.to_unit(scaled), labels, rtol=1e-9)
    if scaling == "standard":
        np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-9)
    else:
        np.testing.assert_allclose([scaled.min(), scaled.max()], [-1, 1], atol=1e-9)
    travelled = TargetTransform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert travelled == transform


def test_minmax_is_the_published_formula() -> None:
    labels = np.array([2.08, 6.23, 277.78])
    expected = 2 * (labels - 2.08) / (277.78 - 2.08) - 1
    np.testing.assert_allclose(fit(labels, "minmax").to_scaled(labels), expected, atol=1e-15)


def test_missing_labels_are_ignored_and_stay_missing() -> None:
    transform = fit([1.0, np.nan, 3.0])
    assert (transform.offset, transform.scale) == (2.0, 1.0)
    np.testing.assert_array_equal(transform.to_scaled(np.array([np.nan, 4.0])), [np.nan, 2.0])


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
@pytest.mark.parametrize("labels", [[0.1, 0.1, 0.1], [5.0], [0.0, np.nan]])
def test_equal_labels_are_shifted_only(labels: list[float], scaling: str) -> None:
    transform = fit(labels, scaling)
    assert (transform.offset, transform.scale) == (labels[0], 1.0)


def test_no_logarithm_of_zero_or_less() -> None:
    with pytest.raises(UserError, match="gap: no logarithm, 2 of 3 labels .*; leave data.log off"):
        fit([0.0, -1.0, 2.0], log=True)
    with pytest.raises(UserError, match="1 of 2"):
        fit([1.0, 2.0], log=True).to_scaled(np.array([0.0, 1.0]))


@pytest.mark.parametrize("unit", ["", " "])
def test_a_unit_is_required(unit: str) -> None:
    with pytest.raises(UserError, match='gap has no unit; write "1"'):
        fit_transform(np.array([1.0, 2.0]), name="gap", unit=unit, scaling="standard", log=False)


@pytest.mark.parametrize("labels", [[], [np.nan]])
def test_labels_are_required(labels: list[float]) -> None:
    with pytest.raises(UserError, match="gap: no label"):
        fit(labels)


def test_unknown_scaling() -> None:
    with pytest.raises(UserError, match="'robust'"):
        fit([1.0, 2.0], "robust")


def test_labels_that_the_scaling_may_see() -> None:
    values = np.arange(6.0)
    split = Split(train=np.array([4, 1]), validation=np.array([2]), test=np.array([0]))
    assert scaling_labels(values, split, "training").tolist() == [4.0, 1.0]
    assert scaling_labels(values, split, "all").tolist() == values.tolist()
    with pytest.raises(UserError, match="'train'"):
        scaling_labels(values, split, "train")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unit": None}, "unit missing"),
        ({"log": 1, "scale": "2"}, "log, scale missing"),
        ({"extra": 1}, "extra missing"),
        ({"scale": 0.0}, "do not scale"),
        ({"scale": float("nan")}, "do not scale"),
        ({"offset": float("inf")}, "do not scale"),
        ({"unit": ""}, "has no unit"),
    ],
)
def test_a_damaged_transform_is_refused(changes: dict[str, object], reason: str) -> None:
    good = TargetTransform("gap", "eV", False, 1.0, 2.0).to_dict()
    with pytest.raises(UserError, match=reason):
        TargetTransform.from_dict({**good, **changes})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match="log, offset, scale, unit missing"):
        TargetTransform.from_dict({"name": "gap"})


GAP = TargetTransform("gap", "eV/atom", log=False, offset=1.0, scale=0.5)


@pytest.mark.parametrize("unit", ["eV/atom", " eV / atom"])
def test_the_same_unit_goes_on(unit: str) -> None:
    assert unit_mismatch(GAP, unit) is None


@pytest.mark.parametrize("unit", ["meV/atom", "eV", "EV/atom", "1"])
def test_another_unit_is_named(unit: str) -> None:
    problem = unit_mismatch(GAP, unit)
    assert problem is not None and f"config.data.unit is {unit}," in problem
    assert "gap in eV/atom" in problem


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_labels_in_another_unit_are_suspected(scaling: str) -> None:
    labels = np.array([1.5, 2.0, 2.5, 3.0, 4.0])
    source = fit(labels, scaling)
    assert magnitude_shift(source, labels[1:]) is None
    doubt = magnitude_shift(source, 1000 * labels)
    assert doubt is not None and "is the unit another one?" in doubt


def test_ten_standard_deviations_are_the_limit() -> None:
    assert magnitude_shift(GAP, np.array([5.9, 6.1, np.nan])) is None
    doubt = magnitude_shift(GAP, np.array([6.0, 6.2]))
    assert doubt is not None and "mean 6.1 eV/atom" in doubt and "on 1: 10.2 of" in doubt


def test_nothing_is_said_of_the_unit_where_there_is_no_label() -> None:
    assert magnitude_shift(GAP, np.array([np.nan, np.nan])) is None


def test_labels_without_logarithm_are_doubted_where_it_was_trained_on() -> None:
    source = TargetTransform("gap", "eV", log=True, offset=0.0, scale=1.0)
    assert magnitude_shift(source, np.array([0.5, 2.0])) is None
    doubt = magnitude_shift(source, np.array([0.5, 0.0]))
    assert doubt is not None and "1 of 2 labels are zero or negative" in doubt
