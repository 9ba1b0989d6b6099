"""Sampling by property; the order of one property is tested with its batches."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmat.data.order import Order, visits_by_property

NAN = np.nan
TARGET = np.array([[1, NAN]] * 12 + [[NAN, 1]] * 3 + [[1, 1]])


@pytest.mark.parametrize(
    ("temperature", "shares"),
    [
        (1.0, [13 / 17, 4 / 17]),
        (2.0, np.sqrt([13, 4]) / np.sqrt([13, 4]).sum()),
        (1e9, [0.5, 0.5]),
        (1e-3, [1.0, 0.0]),  # no power overflows
    ],
)
def test_properties_take_turns_by_temperature(temperature, shares) -> None:
    visits = visits_by_property(TARGET, temperature)
    assert visits.sum() == pytest.approx(len(TARGET))
    assert len(set(visits[:12])) == len(set(visits[12:15])) == 1
    labels = visits[0] * 12, visits[12] * 3
    # A crystal with both labels has the visits of both.
    assert visits[15] == pytest.approx(visits[0] + visits[12])
    found = np.array([labels[0] + visits[0], labels[1] + visits[12]])
    np.testing.assert_allclose(found / found.sum(), shares, rtol=1e-6)


def test_a_property_without_labels_takes_no_turn() -> None:
    target = np.hstack([TARGET, np.full((len(TARGET), 1), NAN)])
    np.testing.assert_array_equal(visits_by_property(target, 2.0), visits_by_property(TARGET, 2.0))


def test_epochs_visit_crystals_as_often_as_asked() -> None:
    visits = visits_by_property(TARGET, 4.0)
    order = Order(16, batch_size=4, epochs=400, seed=3, drop_last=True, visits=visits)
    seen = np.stack([np.bincount(order.epoch(i).ravel(), minlength=16) for i in range(400)])
    assert (seen.sum(axis=1) == 16).all()
    assert (np.abs(seen - visits) < 1 + 1e-9).all()  # an epoch has one more or less at most
    np.testing.assert_allclose(seen.mean(axis=0), visits, atol=0.08)
    again = Order(16, batch_size=4, epochs=400, seed=3, drop_last=True, visits=visits)
    np.testing.assert_array_equal(again.epoch(7), order.epoch(7))
    assert (order.epoch(7) != order.epoch(8)).any()


def test_equal_visits_see_each_crystal_once() -> None:
    order = Order(10, batch_size=4, epochs=2, seed=0, drop_last=False, visits=np.ones(10))
    assert sorted(order.epoch(1).ravel()) == [-1, -1, *range(10)]
