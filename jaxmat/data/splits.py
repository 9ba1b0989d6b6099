"""Which rows are trained on, which choose the checkpoint, which are tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmat.errors import UserError, listed
from jaxmat.runtime.files import read_json, writable, write_json

_OTHER_NAMES = {"val": "validation", "id_train": "train", "id_val": "validation", "id_test": "test"}


class Split(NamedTuple):
    """Rows of a table, int64 each; no row is in two parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def labelled_rows(labels: np.ndarray) -> np.ndarray:
    """Returns the rows with at least one label.

    Args:
        labels: [n_row] or [n_row, n_property], NaN where missing.

    Returns:
        Row numbers in ascending order, int64.
    """
    present = ~np.isnan(labels).reshape(len(labels), -1)
    return np.flatnonzero(present.any(axis=1)).astype(np.int64)


def random_split(
    candidates: np.ndarray,
    *,
    seed: int,
    test_seed: int,
    n_train: int,
    n_validation: int,
    n_test: int,
) -> Split:
    """Draws a split at random.

    The test rows depend on `candidates`, `test_seed` and `n_test` alone. From what is left, the
    training rows are taken from the front of a shuffle and the validation rows from its back: for
    one seed a larger training set contains the smaller, and the validation set stays.

    Args:
        candidates: rows to draw from, each once, in any order; see `labelled_rows`.
        seed: of the training and validation rows, 0 to 2**32 - 1.
        test_seed: of the test rows, 0 to 2**32 - 1.
        n_train: number of training rows, at least 1.
        n_validation: number of validation rows.
        n_test: number of test rows.

    Raises:
        UserError: the numbers do not fit the candidates.
    """
    wanted = n_train + n_validation + n_test
    if n_train < 1 or min(n_validation, n_test) < 0 or wanted > len(candidates):
        raise UserError(
            f"cannot draw {n_train} training + {n_validation} validation + {n_test} test rows = "
            f"{wanted} from {len(candidates)} rows with labels"
            + ("; at least one is needed to train on" if n_train < 1 else "")
            + ". Lower data.n_train, data.n_validation or data.n_test, or give more labels"
        )
    shuffled = _shuffle(np.sort(candidates).astype(np.int64), [test_seed, 0])
    test, pool = shuffled[:n_test], np.sort(shuffled[n_test:])
    pool = _shuffle(pool, [seed, 1])
    return Split(train=pool[:n_train], validation=pool[len(pool) - n_validation :], test=test)


def _shuffle(rows: np.ndarray, seed: list[int]) -> np.ndarray:
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    return np.random.RandomState(seed).permutation(rows)


def read_split(path: Path, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads a split from JSON: {"train": [ids], "validation": [ids], "test": [ids]}.

    "val" stands for "validation", too, and "id_train", "id_val", "id_test" for the parts, as ALIGNN
    writes them. The validation and the test part may be left out.

    Args:
        path: the file.
        ids: the ids of the table's rows.

    Returns:
        The rows of each part that is there, in the file's order.

    Raises:
        UserError: not such a file, ids that the table lacks, or ids that appear more than once.
    """
    try:
        content = read_json(path)
    except UserError as problem:
        raise UserError(f"split {problem}") from problem
    for other, name in _OTHER_NAMES.items():
        if other in content and name not in content:
            content[name] = content.pop(other)
    known = "train" in content and set(content) <= set(Split._fields)
    if not known or not all(isinstance(part, list) for part in content.values()):
        raise UserError(
            f'split {path}: expected {{"train": [ids], "validation": [ids], "test": [ids]}}; '
            "validation and test may be left out"
        )
    there = [part for part in Split._fields if part in content]
    parts = {part: [writable(str(id)) for id in content[part]] for part in there}
    row_of = {id: row for row, id in enumerate(ids)}
    problems = [
        f"{id} ({part}) is not in the table"
        for part in parts
        for id in parts[part]
        if id not in row_of
    ]
    members = {part: set(parts[part]) for part in parts}
    counts = Counter(id for part in parts.values() for id in part)
    problems += [
        f"{id} appears {count} times, in {', '.join(part for part in parts if id in members[part])}"
        for id, count in counts.items()
        if count > 1
    ]
    if problems:
        raise UserError(f"split {path}:\n{listed(problems)}")
    return {part: np.array([row_of[id] for id in parts[part]], np.int64) for part in parts}


def write_split(path: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Writes the ids of each part as `read_split` reads them; the file is whole or not there."""
    write_json(path, {part: list(ids) for part, ids in parts.items()})
