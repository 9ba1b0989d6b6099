"""Drawn splits: parts apart, groups together, labels spread alike, folds as others draw them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmat.data.drawing import (
    by_chance,
    by_group,
    by_label,
    draw_split,
    group_folds,
    kfold,
    label_folds,
)
from jaxmat.errors import UserError

ROWS = 200
LABELS = np.random.RandomState(0).lognormal(size=ROWS)
GROUPS = np.random.RandomState(1).randint(0, 40, ROWS).tolist()
PINNED = [[1, 7, 8], [2, 3, 10], [4, 11], [0, 5], [6, 9]]
WAYS = {"random": by_chance, "stratified": by_label(LABELS), "groups": by_group(GROUPS)}


def draw(way: str, seed: int = 0, test_seed: int = 0, **sizes: int):
    sizes = {"n_train": 0, "n_validation": 30, "n_test": 40} | sizes
    return draw_split(np.arange(ROWS), WAYS[way], seed=seed, test_seed=test_seed, **sizes)


@pytest.mark.parametrize("way", WAYS)
def test_parts_are_apart_and_the_test_part_is_that_of_its_seed(way: str) -> None:
    split, other, third = draw(way), draw(way, seed=1), draw(way, test_seed=1)
    assert sorted(np.concatenate(split)) == list(range(ROWS))
    assert len(split.test) >= 40 and len(split.validation) >= 30
    np.testing.assert_array_equal(split.test, other.test)
    assert set(split.validation) != set(other.validation)
    assert set(split.test) != set(third.test)
    few = draw(way, n_train=20)
    assert 20 <= len(few.train) < 40 and set(few.train) <= set(split.train)
    np.testing.assert_array_equal(few.test, split.test)


def test_groups_stay_together() -> None:
    owners = [{GROUPS[row] for row in part} for part in draw("groups")]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]


def test_labels_are_spread_alike() -> None:
    everywhere = np.quantile(LABELS, [0.1, 0.5, 0.9])
    for part in draw("stratified"):
        np.testing.assert_allclose(np.quantile(LABELS[part], [0.1, 0.5, 0.9]), everywhere, rtol=0.2)


def test_too_little_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match="130 to train on .* 131 are wanted"):
        draw("random", n_train=131)


def test_folds_are_those_of_scikit_learn() -> None:
    """KFold(n_splits=5, shuffle=True, random_state=18012019), of 12 rows."""
    folds = [fold.tolist() for fold in kfold(12, 5, 18012019)]
    assert folds == PINNED
    sklearn = pytest.importorskip("sklearn.model_selection")
    for count in (12, 1265):
        expected = sklearn.KFold(5, shuffle=True, random_state=18012019).split(np.zeros(count))
        for fold, (_, test) in zip(kfold(count, 5, 18012019), expected, strict=True):
            np.testing.assert_array_equal(fold, test)


@given(st.integers(2, 6), st.integers(0, 99))
def test_each_row_is_in_one_fold(folds: int, seed: int) -> None:
    for parts in (
        kfold(ROWS, folds, seed),
        label_folds(LABELS, folds, seed),
        group_folds(GROUPS, folds, seed),
    ):
        assert len(parts) == folds
        assert sorted(np.concatenate(parts).tolist()) == list(range(ROWS))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 12
    owners = [{GROUPS[row] for row in part} for part in group_folds(GROUPS, folds, seed)]
    assert sum(map(len, owners)) == len(set(GROUPS))


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(UserError, match="3 rows or groups cannot be cut into 5 folds"):
        kfold(3, 5, 0)
