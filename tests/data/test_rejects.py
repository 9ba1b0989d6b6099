"""Unusable rows are left out with a reason, and too many of them stop the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.rejects import Rejected, describe_rejected, take_usable, too_many_rejected
from jaxmat.data.tables import TableRows, read_rows


def crystal(edge: float, sites: int = 1) -> dict[str, object]:
    where = [[0, 0, i / sites] for i in range(sites)]
    return Structure(Lattice.cubic(edge), ["Si"] * sites, where).as_dict()


@pytest.fixture
def rows(tmp_path: Path) -> TableRows:
    crystals = [crystal(3.0), crystal(0.3), None, crystal(4.0), crystal(9.0, sites=3)]
    data = [[structure, float(row)] for row, structure in enumerate(crystals)]
    layout = {"index": list("abcde"), "columns": ["structure", "gap"], "data": data}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(layout))
    return read_rows(path)


def test_bad_rows_leave_with_their_labels(rows: TableRows) -> None:
    table, usable, rejected = take_usable(rows, [3, 2, 1, 0])
    assert usable == [3, 0]
    assert table.ids == ("d", "a")
    assert [structure.lattice.a for structure in table.structures] == [4.0, 3.0]
    assert table.column("gap").tolist() == [3.0, 0.0]
    assert [(row.id, row.place) for row in rejected] == [("c", "row c"), ("b", "row b")]
    assert rejected[0].reason.startswith("unreadable: not a structure")
    assert rejected[1].reason.startswith("density: ")


def test_rows_that_are_not_wanted_are_not_read(rows: TableRows) -> None:
    assert take_usable(rows, [0, 3])[2] == []
    assert take_usable(rows, [])[1] == []


def test_large_cells_are_left_out_without_a_reason(rows: TableRows) -> None:
    assert take_usable(rows, [0, 4])[1] == [0, 4]
    assert take_usable(rows, [0, 4], max_sites=2)[1:] == ([0], [])


def test_reasons_are_counted_by_kind() -> None:
    rejected = [Rejected(f"mp-{i}", "", "overlap: sites 0 and 1") for i in range(5)]
    rejected.append(Rejected("mp-9", "", "density: 0.1"))
    text = describe_rejected(rejected, 50)
    assert text.startswith("6 of 50 rows cannot be used")
    assert "overlap: 5 (mp-0, mp-1, mp-2, ...)" in text and "density: 1 (mp-9)" in text


@pytest.mark.parametrize(
    ("n_rejected", "n_total", "max_fraction", "stops"),
    [(0, 0, 0.0, False), (1, 100, 0.0, True), (1, 100, 0.01, False), (29, 100, 0.29, False)]
    + [(2, 100, 0.01, True), (3, 3, 1.0, False)],
)
def test_fraction_that_may_be_left_out(n_rejected, n_total, max_fraction, stops) -> None:
    rejected = [Rejected(f"mp-{row}", "", "size: no sites") for row in range(n_rejected)]
    refusal = too_many_rejected(rejected, n_total, max_fraction)
    assert (refusal is not None) == stops
    if refusal:
        assert f"{n_rejected} of {n_total}" in refusal
        assert all(f"{row.id}: size: no sites" in refusal for row in rejected)
