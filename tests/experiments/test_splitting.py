"""Splits as a config asks for them: drawn in every way, folds, files; what is written is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.contents import Contents
from jaxmat.data.findings import Findings
from jaxmat.data.splits import Split, write_split
from jaxmat.data.tables import Table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.labelled import Labelled
from jaxmat.experiments.splitting import find_split

ROWS = 60
PAIRS = [("Na", "Cl"), ("K", "Cl"), ("Mg", "O"), ("Ca", "O"), ("Fe", "O"), ("Fe", "S")]


def crystal(row: int) -> Structure:
    """Of one of six pairs of elements, every other one with twice as many sites."""
    one, other = PAIRS[row % 6]
    cell = Structure(Lattice.cubic(4 + row / 100), [one, other], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return cell * (1, 1, 2) if row % 12 > 5 else cell


SOURCE = np.array([["a", "b", "c", ""][row % 4] for row in range(ROWS)], object)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    ids = tuple(f"{row:03d}" for row in range(ROWS))
    columns = {"source": SOURCE, "year": np.where(np.arange(ROWS) % 2, 2000.0, np.nan)}
    contents = Contents.of([crystal(row) for row in range(ROWS)])
    table = Table("t", ids, contents, columns)
    labels = np.arange(ROWS, dtype=float)[::-1, None].copy()
    # Every third row of the file cannot be used.
    numbers = [row + row // 2 for row in range(ROWS)]
    names = dict(zip(numbers, ids, strict=True))
    file_ids = tuple(names.get(number, f"x{number}") for number in range(numbers[-1] + 1))
    return Labelled(table, (), labels, [], numbers, file_ids)


def find(labelled: Labelled, **fields: Any) -> tuple[Split, Findings]:
    config, findings = defaults.data("t.csv", "gap", "eV"), Findings("t.csv")
    config.update(fields)
    split = find_split(config, 0, labelled, findings)
    together = np.concatenate(split)
    assert len(set(together.tolist())) == len(together)  # no row is in two parts
    return split, findings


WAYS = ("random", "stratified", "composition", "chemical_system", "column:source", "element:Fe")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_is_read(labelled: Labelled, tmp_path: Path, way: str) -> None:
    split, _ = find(labelled, split_by=way, n_validation=7, n_test=9)
    assert all(map(len, split))
    path = tmp_path / "split.json"
    ids = {part: [labelled.table.ids[i] for i in rows] for part, rows in split._asdict().items()}
    write_split(path, ids)
    again, findings = find(labelled, split=str(path), split_by=way)
    for one, other in zip(split, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not findings.remarks


def groups(way: str) -> list[str]:
    if way == "column:source":
        return [cell or f"alone {row}" for row, cell in enumerate(SOURCE)]
    return ["".join(PAIRS[row % 6]) for row in range(ROWS)]


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("way", ["composition", "chemical_system", "column:source"])
def test_groups_stay_together(labelled: Labelled, way: str, folds: int) -> None:
    """Cells of one composition, however large; rows without a group are each one of their own."""
    split, _ = find(labelled, split_by=way, folds=folds, n_validation=5, n_test=5)
    owners = [{groups(way)[row] for row in part} for part in split]
    assert sum(map(len, owners)) == len(set.union(*owners))
    if way == "column:source":
        assert len({group for group in set.union(*owners) if "alone" in group}) == ROWS // 4


def test_numbers_group_as_well(labelled: Labelled) -> None:
    split, _ = find(labelled, split_by="column:year", n_validation=5, n_test=5)
    known = [{row % 2 for row in part if row % 2} for part in split]
    assert sum(map(len, known)) == 1


def test_an_element_is_left_out(labelled: Labelled) -> None:
    split, _ = find(labelled, split_by="element:Fe")
    assert split.test.tolist() == [row for row in range(ROWS) if row % 6 > 3]


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("element")])
def test_each_row_is_tested_in_one_fold(labelled: Labelled, way: str) -> None:
    tests = [find(labelled, split_by=way, folds=3, fold=k)[0].test for k in range(3)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(ROWS))


@pytest.mark.parametrize("given", [("train",), ("train", "validation"), ("train", "test")])
def test_parts_that_a_file_lacks_are_drawn(
    labelled: Labelled, tmp_path: Path, given: tuple[str, ...]
) -> None:
    ids = {"train": labelled.table.ids[:40], "validation": labelled.table.ids[40:50]}
    ids["test"] = labelled.table.ids[50:]
    (tmp_path / "s.json").write_text(json.dumps({part: ids[part] for part in given}))
    split, _ = find(labelled, split=str(tmp_path / "s.json"))
    for part, rows in split._asdict().items():
        if part in given[1:]:
            assert rows.tolist() == [int(id) for id in ids[part]]
        else:
            assert len(rows) and max(rows) < 40


def test_rows_of_a_file_that_cannot_be_used_are_told(labelled: Labelled, tmp_path: Path) -> None:
    parts = {"train": [*labelled.file_ids[:60]], "test": [*labelled.file_ids[60:]]}
    (tmp_path / "s.json").write_text(json.dumps(parts))
    split, findings = find(labelled, split=str(tmp_path / "s.json"))
    assert sum(map(len, split)) == ROWS
    assert ": 29 crystals without a label" in findings.remarks[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"split_by": "column:nothing"}, "no column 'nothing'; there are: source, year"),
        ({"split_by": "element:Xx"}, "'Xx' is not an element"),
        ({"split_by": "element:Au"}, "no crystal holds Au"),
        ({"split_by": "element:Fe", "folds": 3}, "has no folds"),
        ({"split_by": "grouped"}, "it may be random, stratified"),
        ({"folds": 3, "fold": 3}, "there are 0 to 2"),
    ],
)
def test_mistakes_are_named(labelled: Labelled, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        find(labelled, **fields)
