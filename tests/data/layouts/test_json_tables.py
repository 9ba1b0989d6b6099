"""JSON as people have it: every form of pandas, ids and structures, entries, one file a crystal."""

from __future__ import annotations

import bz2
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.layouts import json_tables
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.reading import read
from jaxmat.data.tables import read_rows
from jaxmat.errors import UserError

ROWS = 3
CRYSTALS = [
    Structure(Lattice.cubic(4 + i), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]) for i in range(ROWS)
]
DICTS = [crystal.as_dict() for crystal in CRYSTALS]
GAPS = [0.5, None, 1.5]
IDS = ["a", "b", "c"]


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def check(path: Path, ids: list[str]) -> None:
    rows = read_rows(path)
    column = "gap" if "gap" in rows.columns else "target"
    assert set(rows.reasons) == {""} and list(rows.ids) == ids
    np.testing.assert_array_equal(rows.columns[column], [0.5, np.nan, 1.5])
    there = np.flatnonzero(rows.contents.sites)
    found = [content.lattice[0, 0] for content in rows.contents.take(there)]
    assert found == [4, 5, 6]


def columns(**more: dict[str, Any]) -> dict[str, Any]:
    gaps = dict(zip(IDS, GAPS, strict=True))
    return {**more, "structure": dict(zip(IDS, DICTS, strict=True)), "gap": gaps}


def by_index(*names: str) -> dict[str, Any]:
    cells = {"gap": GAPS, "structure": DICTS, "atoms": DICTS, "final": DICTS}
    return {id: {name: cells[name][i] for name in names} for i, id in enumerate(IDS)}


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (columns(), IDS),
        (columns(note={"a": "x", "b": None}, other={"a": [1], "b": {}}), IDS),
        (columns(initial=dict(zip(IDS, DICTS, strict=True))), IDS),
        (by_index("structure", "gap"), IDS),
        (by_index("gap", "atoms"), IDS),
        (by_index("gap", "final"), IDS),
        (json.dumps(by_index("structure", "gap"), indent=2), IDS),
        ([[d, gap] for d, gap in zip(DICTS, GAPS, strict=True)], ["0", "1", "2"]),
        (
            "\n".join(json.dumps([gap, d]) for d, gap in zip(DICTS, GAPS, strict=True)),
            ["0", "1", "2"],
        ),
        ({"schema": {"fields": []}, "data": [*by_index("gap", "final").values()]}, ["0", "1", "2"]),
        ([{**d, "properties": {"gap": g}} for d, g in zip(DICTS, GAPS, strict=True)], list("012")),
        (
            [
                {"calc": {"@class": "ComputedStructureEntry", "entry_id": id, "structure": d}}
                | {"gap": gap}
                for id, d, gap in zip(IDS, DICTS, GAPS, strict=True)
            ],
            IDS,
        ),
    ],
)
def test_tables_are_read_as_they_come(tmp_path: Path, content: Any, ids: list[str]) -> None:
    check(write(tmp_path / "t.json", content), ids)


def test_columns_without_names_get_those_that_are_asked_for(tmp_path: Path) -> None:
    rows = [[d, 1, 2] for d in DICTS]
    path = write(tmp_path / "t.json", rows)
    assert [*read_rows(path).columns] == ["target_1", "target_2"]
    assert [*read_rows(path, Wanted(labels=("a", "b"))).columns] == ["a", "b"]


def test_rows_of_columns_go_their_way_alone(tmp_path: Path) -> None:
    """A structure that is missing is one row; labels go with their index, in any order."""
    content = columns()
    content["structure"]["b"] = None
    content["gap"] = {"c": 3, "a": 1}
    rows = read_rows(write(tmp_path / "t.json", content))
    assert rows.reasons[1] == "unreadable: not a structure: column 'structure' has null"
    np.testing.assert_array_equal(rows.columns["gap"], [1, np.nan, 3])
    assert (rows.contents.sites == 0).tolist() == [False, True, False]


def test_lists_of_texts_are_kept_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pandas' columns: a row without its list was a group of its own in split_by."""
    monkeypatch.setattr(json_tables, "_MOST_KEPT", 2)
    ids = [f"mp-{i}" for i in range(6)]
    elements = {id: ["Na", "Cl"] for id in ids}
    content = {
        "structure": dict.fromkeys(ids, DICTS[0]),
        "elements": elements,
        "forces": {id: [[0.0, 1.0]] for id in ids},
    }
    rows = read_rows(write(tmp_path / "t.json", content))
    assert list(rows.ids) == ids and rows.columns.keys() == {"elements"}
    assert list(rows.columns["elements"]) == ["Na,Cl"] * len(ids)


@pytest.mark.parametrize("indent", [None, 1])
def test_lines_may_be_as_long_as_a_row_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None
) -> None:
    """Of which the first was longer than what was looked at to tell what the file is."""
    monkeypatch.setattr(json_tables, "_SMALL", 100)
    records = [*by_index("structure", "gap").values()]
    for rows in (records, [[one["structure"], one["gap"]] for one in records]):
        text = "\n".join(json.dumps(row, indent=indent) for row in rows)
        check(write(tmp_path / "t.json", text), ["0", "1", "2"])
        check(write(tmp_path / "t.json", json.dumps(rows, indent=indent)), ["0", "1", "2"])
    check(write(tmp_path / "t.json", json.dumps(columns(), indent=indent)), IDS)


def test_ids_and_structures(tmp_path: Path) -> None:
    """Of dicts, and of the texts of files."""
    texts = [crystal.to(fmt="cif") for crystal in CRYSTALS]
    for values in (DICTS, texts):
        content = dict(zip(IDS, values, strict=True))
        found = list(read(write(tmp_path / "t.json", content)))
        assert [entry.id for entry in found] == IDS
        assert [entry.structure.lattice.a for entry in found] == [4, 5, 6]
    many = {f"mp-{i}": DICTS[0] for i in range(100)}
    assert [entry.id for entry in read(write(tmp_path / "t.json", many))] == [*many]
    assert len([*read(write(tmp_path / "t.json", texts))]) == ROWS


def test_one_record_is_named_by_its_file(tmp_path: Path) -> None:
    """Files of one entry each had all the id 0."""
    entry = {"@class": "ComputedStructureEntry", "energy": -1, "structure": DICTS[0]}
    for name in ("a", "b"):
        write(tmp_path / f"{name}.json", entry)
    assert [one.id for one in read(tmp_path)] == [str(tmp_path / f"{n}.json") for n in "ab"]
    (one,) = read(write(tmp_path / "c.json", entry | {"entry_id": "mp-1"}))
    assert one.id == "mp-1"
    (one,) = read(write(tmp_path / "c.json", {"calc": entry, "gap": 1}))
    assert one.content is not None and one.labels == {"gap": 1} | {
        "@class": "ComputedStructureEntry",
        "energy": -1,
    }


@pytest.mark.parametrize("end", ['[{"a": 1}]', "{}", "x"])
def test_what_follows_the_end_is_not_lost(tmp_path: Path, end: str) -> None:
    """Two lists in one file, as cat makes them: the second was left out in silence."""
    for text in (json.dumps(DICTS), json.dumps({"data": DICTS}), json.dumps(columns())):
        found = list(read(write(tmp_path / "t.json", text + "\n" + end)))
        assert len(found) != ROWS or found[-1].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (columns(final=dict(zip(IDS, DICTS, strict=True))) | {"structure": {}}, None),
        ({"one": {"a": DICTS[0], "b": DICTS[1]}, "two": {"a": DICTS[0], "b": DICTS[1]}}, "several"),
        ({"a": {"x": 1}, "b": {"x": 2}}, "recognised: a JSON object with 'a', 'b'"),
        ({"sets": {"a": DICTS[0]}, "unit": "eV"}, "recognised: a JSON object with 'unit', 'sets'"),
    ],
)
def test_what_is_not_understood_is_told(tmp_path: Path, content: Any, reason: str | None) -> None:
    path = write(tmp_path / "t.json", content)
    if reason is None:
        assert len(read_rows(path).ids) == ROWS
        return
    with pytest.raises(UserError, match=reason):
        read_rows(path)


@pytest.mark.parametrize("packing", ["bz2", "xz", "zip"])
def test_packed_as_pandas_does(tmp_path: Path, packing: str) -> None:
    data = json.dumps(columns()).encode()
    path = tmp_path / f"t.json.{packing}"
    if packing == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("jdft_3d.json", data)
    else:
        path.write_bytes(bz2.compress(data) if packing == "bz2" else lzma.compress(data))
    check(path, IDS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_rows(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PAR1\0\0", "recognised: Parquet"),
        (b"\x80\x04\x95\0", "(?s)recognised: a pickle.*If you trust it"),
        (b"\x89HDF\r\n\x1a\n", "recognised: HDF5"),
        (b"- of UlmASE-Trajectory\0", "recognised: a trajectory of ASE"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "save it as CSV"),
        (b"<?xml version='1.0'?>\n<modeling>\n", "(?s)unknown format.*ase.io.read"),
    ],
)
def test_other_files_are_recognised(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason):
        read_rows(path)


def test_a_tar_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "a.json", DICTS[0])
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.json")
    with pytest.raises(UserError, match="a tar archive: unpack it"):
        read_rows(tmp_path / "t.tar.gz")
