"""Splits that are drawn: by label, by groups that stay together, in folds, or without an element.

Random splits without folds are those of `jaxmat.data.splits.random_split`. scikit-learn has these,
too, but for the parts that a run needs: training rows of a given number beside the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from jaxmat.data.splits import Split
from jaxmat.errors import UserError

# From rows, a number and a seed: as many of them, about as many where groups stay together.
Pick = Callable[[np.ndarray, int, Sequence[int]], np.ndarray]


def draw_split(
    rows: np.ndarray,
    pick: Pick,
    *,
    seed: int,
    test_seed: int,
    n_train: int,
    n_validation: int,
    n_test: int,
    test: np.ndarray | None = None,
) -> Split:
    """Draws the test part, the validation part from what is left, and the training part from that.

    Args:
        rows: to draw from, each once.
        pick: how.
        seed: of the training and validation rows.
        test_seed: of the test rows.
        n_train: number of training rows; 0: all that are left.
        n_validation: number of validation rows.
        n_test: number of test rows.
        test: the test rows, where they are given; then `n_test` and `test_seed` do not matter.

    Raises:
        UserError: nothing is left to train on.
    """
    if test is None:
        test = pick(rows, n_test, [test_seed, 0])
    pool = np.setdiff1d(rows, test)
    validation = pick(pool, min(n_validation, len(pool)), [seed, 1])
    train = np.setdiff1d(pool, validation)
    if n_train > len(train) or not len(train):
        raise UserError(
            f"{len(rows)} rows leave {len(train)} to train on beside {len(validation)} to validate "
            f"and {len(test)} to test on; {max(n_train, 1)} are wanted"
        )
    if n_train:
        train = pick(train, n_train, [seed, 2])
    return Split(*(part.astype(np.int64) for part in (train, validation, test)))


def by_chance(rows: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """Picks rows at random; see `Pick`."""
    return np.sort(_shuffled(rows, seed)[:count])


def by_label(labels: np.ndarray) -> Pick:
    """Returns what picks rows whose labels are spread like those of all.

    Args:
        labels: of all rows, [rows].
    """

    def pick(rows: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
        shuffled = _shuffled(rows, seed)  # which tells equal labels apart
        ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
        bounds = np.arange(count + 1) * len(ordered) // max(count, 1)
        places = np.random.RandomState([*seed, 1]).random_sample(count) * np.diff(bounds)
        return np.sort(ordered[bounds[:-1] + places.astype(np.int64)])

    return pick


def by_group(groups: Sequence[Hashable]) -> Pick:
    """Returns what picks whole groups, until there are at least as many rows as asked for.

    Args:
        groups: of all rows.
    """

    def pick(rows: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
        members = _members(groups, rows)
        chosen: list[int] = []
        for name in _shuffled(np.arange(len(members)), seed).tolist():
            if len(chosen) >= count:
                break
            chosen += list(members.values())[name]
        return np.sort(np.array(chosen, np.int64))

    return pick


def kfold(count: int, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the rows of each fold, those of scikit-learn's KFold(folds, shuffle=True, seed).

    Args:
        count: of rows.
        folds: how many.
        seed: of the drawing.

    Raises:
        UserError: there are fewer rows than folds.
    """
    _check_folds(count, folds)
    shuffled = np.random.RandomState(seed).permutation(count)
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return [np.sort(part) for part in np.split(shuffled, np.cumsum(sizes)[:-1])]


def label_folds(labels: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Returns folds whose labels are spread alike: of neighbours in size each goes to another."""
    _check_folds(len(labels), folds)
    ordered = np.argsort(labels, kind="stable")
    random = np.random.RandomState(seed)
    turns = [random.permutation(folds) for _ in range(-(-len(ordered) // folds))]
    fold = np.concatenate(turns)[: len(ordered)]
    return [np.sort(ordered[fold == number]) for number in range(folds)]


def group_folds(groups: Sequence[Hashable], folds: int, seed: int) -> list[np.ndarray]:
    """Returns folds of whole groups, about equally large: each group goes to the smallest fold."""
    members = list(_members(groups, np.arange(len(groups))).values())
    _check_folds(len(members), folds)
    parts: list[list[int]] = [[] for _ in range(folds)]
    shuffled = _shuffled(np.arange(len(members)), [seed, 0]).tolist()
    for name in sorted(shuffled, key=lambda name: -len(members[name])):
        min(parts, key=len).extend(members[name])
    return [np.sort(np.array(part, np.int64)) for part in parts]


def _members(groups: Sequence[Hashable], rows: np.ndarray) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = {}
    for row in rows.tolist():
        members.setdefault(groups[row], []).append(row)
    return members


def _check_folds(count: int, folds: int) -> None:
    if not 2 <= folds <= count:
        raise UserError(f"{count} rows or groups cannot be cut into {folds} folds")


def _shuffled(rows: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    return np.random.RandomState(list(seed)).permutation(np.sort(rows))
