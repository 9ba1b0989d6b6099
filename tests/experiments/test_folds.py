"""Folds that never see the test part and are drawn as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.folds import describe_test, draw_folds, make_folds
from jaxmat.experiments.prepare import Prepared


@given(
    n=st.integers(12, 60), folds=st.integers(2, 6), n_validation=st.integers(1, 3), seed=st.just(3)
)
def test_folds_are_disjoint_and_cover_all_with_equal_training_parts(
    n: int, folds: int, n_validation: int, seed: int
) -> None:
    ids = [f"crystal-{i}" for i in range(n)]
    splits = draw_folds(ids, folds, n_validation, seed)
    assert sorted(id for split in splits for id in split["test"]) == sorted(ids)
    for split in splits:
        assert sorted(id for part in split.values() for id in part) == sorted(ids)
        assert len(split["validation"]) - n_validation in (0, 1)
        assert len(split["test"]) in (n // folds, -(-n // folds))
    assert len({len(split["train"]) for split in splits}) == 1
    assert draw_folds(ids[::-1], folds, n_validation, seed) == splits
    assert draw_folds(ids, folds, n_validation, seed + 1) != splits


CHOOSE = {"folds": 4, "repeats": 2, "data.split_by": "chemical_system"}


def folds_of(groups: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns the folds of labels that are all 1 but for the first."""
    ids = {"train": tuple(groups)[4:], "validation": tuple(groups)[:4]}
    grouped = {part: [groups[id] for id in ids[part]] for part in ids}
    labels = {part: np.arange(len(ids[part]), dtype=float)[:, None] for part in ids}
    by_group = fields.get("data.split_by") != "stratified"
    prepared: Any = Prepared(ids, labels, {}, {}, {}, groups=grouped if by_group else {})
    settings = defaults.choose()
    settings.update_from_flattened_dict(CHOOSE | fields)
    return dict(make_folds(settings, prepared).splits)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=10, max_size=16),
    seed=st.integers(0, 3),
)
def test_groups_stay_together_in_the_folds_as_in_the_test_part(sizes: list[int], seed: int) -> None:
    groups = {f"{g}-{i}": ("group", g) for g, size in enumerate(sizes) for i in range(size)}
    splits = folds_of(groups, seed=seed)
    assert len(splits) == 8 and splits == folds_of(groups, seed=seed)
    for split in splits.values():
        held = [{groups[id] for id in split[part]} for part in ("train", "validation", "test")]
        assert all(held) and not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    for repeat in range(2):
        folds = [split for name, split in splits.items() if f"repeat_{repeat}" in name]
        assert sorted(id for split in folds for id in split["test"]) == sorted(groups)
        assert len({len(split["train"]) for split in folds}) == 1  # they fit into one program


def test_stratified_folds_have_labels_of_all_sizes() -> None:
    splits = folds_of({f"{i:02d}": i for i in range(44)}, **{"data.split_by": "stratified"})
    labels = {f"{i:02d}": i - 4 if i > 3 else i for i in range(44)}
    for split in splits.values():
        quarters = sorted(labels[id] * 4 // 40 for id in split["test"])
        assert {quarters.count(quarter) for quarter in range(4)} <= {2, 3, 4}


def test_too_few_groups_are_told() -> None:
    with pytest.raises(UserError, match=r"3 groups .*split_by.* 4 folds"):
        folds_of({str(i): i % 3 for i in range(20)})


def test_that_the_expected_error_is_not_about_an_element_left_out_is_said() -> None:
    settings = defaults.choose()
    assert describe_test(settings) == ""
    settings.data.split_by = "element:Fe"
    assert "about the test part, whose crystals all hold Fe" in describe_test(settings)
