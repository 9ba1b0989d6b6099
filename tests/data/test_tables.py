"""Tables: what people bring is read exactly, and what cannot be used is named."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data import matbench
from jaxmat.data.tables import Table, open_table, read_table
from jaxmat.errors import UserError


def crystal(edge: float = 4.0) -> Structure:
    return Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def layout(**columns: list[Any]) -> dict[str, list[Any]]:
    n_rows = len(next(iter(columns.values())))
    columns = {"structure": [crystal(4 + row).as_dict() for row in range(n_rows)], **columns}
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return {"index": list(range(10, 10 + n_rows)), "columns": list(columns), "data": rows}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write_json(content: Any) -> Path:
        path = tmp_path / "some.table.json.gz"
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
        return path

    return write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in range(3):
        crystal(4 + row).to(str(tmp_path / f"c{row}.cif"))
    return tmp_path


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_json_table_is_read_exactly(write: Callable[[Any], Path]) -> None:
    gap = [0.1 + 0.2, 1e-300, -3]
    table = read_table(write(layout(gap=gap, kind=["a", None, "c"])))
    assert table.name == "some.table"
    assert table.ids == ("10", "11", "12")
    assert table.structures == tuple(crystal(4 + row) for row in range(3))
    assert table.column("gap").tolist() == gap
    assert table.columns["kind"].tolist() == ["a", "", "c"]


def test_plain_json_is_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(layout(gap=[1.5])), encoding="utf-8-sig")
    assert read_table(str(path)).column("gap").tolist() == [1.5]


def test_missing_values_are_nan(write: Callable[[Any], Path]) -> None:
    missing = ["", "na", "NaN", "null", "None", None, float("nan"), " "]
    labels = read_table(write(layout(gap=[*missing, "2.5", 1]))).column("gap")
    assert np.isnan(labels[:-2]).all()
    assert labels[-2:].tolist() == [2.5, 1.0]


@pytest.mark.parametrize(
    "cell", [True, "true", "1_0", "１２", "٣", "0x1p3", "1,5", "1 2", "1e", [1]]
)
def test_labels_are_numbers_as_written(write: Callable[[Any], Path], cell: Any) -> None:
    with pytest.raises(UserError, match="'gap' is not numeric"):
        read_table(write(layout(gap=["+1.5E-3", " .5 ", "3.", cell]))).column("gap")


def test_a_list_of_strings_is_its_items_with_commas(write: Callable[[Any], Path]) -> None:
    cells = [["gv", "ph"], ["dc"], [], None, ["a", 1]]
    table = read_table(write(layout(test_of=cells, filled=[[]] * len(cells))))
    assert table.columns["test_of"].tolist() == ["gv,ph", "dc", "", "", "['a', 1]"]
    assert table.columns["filled"].tolist() == [""] * len(cells)


@pytest.mark.parametrize(
    ("material_id", "ids"),
    [
        (["mp-1", "mp-2"], ("mp-1", "mp-2")),
        ([1, 2], ("1", "2")),
        (["mp-1", "mp-1"], ("10", "11")),
        (["mp-1", None], ("10", "11")),
    ],
)
def test_ids(write: Callable[[Any], Path], material_id: list[Any], ids: tuple[str, ...]) -> None:
    assert read_table(write(layout(gap=[1, 2], material_id=material_id))).ids == ids


def test_the_column_of_the_ids_can_be_chosen(write: Callable[[Any], Path]) -> None:
    path = write(layout(gap=[1, 2], material_id=["mp-1", "mp-2"], name=["a", "b"]))
    chosen = {"material_id": ("mp-1", "mp-2"), "name": ("a", "b"), "": ("10", "11")}
    for column, ids in chosen.items():
        assert open_table(path, column).ids == ids
    assert open_table(path).ids == ("mp-1", "mp-2")


def test_take_keeps_rows_together(write: Callable[[Any], Path]) -> None:
    table = read_table(write(layout(gap=[0.0, 1.0, 2.0]))).take([2, 0])
    assert table.ids == ("12", "10")
    assert [structure.lattice.a for structure in table.structures] == [6.0, 4.0]
    assert table.column("gap").tolist() == [2.0, 0.0]


def test_column_says_what_there_is(write: Callable[[Any], Path]) -> None:
    table = read_table(write(layout(gap=[1, 2], k_vrh=[3, 4], kind=["", "1.2 eV"])))
    with pytest.raises(UserError, match="'gab' does not exist.*gap, k_vrh"):
        table.column("gab")
    with pytest.raises(UserError, match="(?s)'kind' is not numeric:.*row 11 has '1.2 eV'.*gap, k"):
        table.column("kind")


def test_all_cells_that_are_no_numbers_are_named(write: Callable[[Any], Path]) -> None:
    table = read_table(write(layout(gap=["x", 1, [2], "N/A", None])))
    with pytest.raises(
        UserError, match=r"(?s)row 10 has 'x'.*row 12 has '\[2\]'.*row 13 has 'N/A'"
    ):
        table.column("gap")


@pytest.mark.parametrize("huge", ["inf", "-Infinity", float("inf"), 10**400, 1e31])
def test_infinite_labels_are_refused_where_they_are_asked_for(
    write: Callable[[Any], Path], huge: object
) -> None:
    table = read_table(write(layout(gap=[1, 2, huge], other=[1, 2, 3])))
    assert table.column("other").tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="(?s)'gap' has values that are infinite.*row 12 has "):
        table.column("gap")


def test_csv_with_structure_files(folder: Path) -> None:
    crystal(9).to(str(folder / "POSCAR-9"), fmt="poscar")
    text = "\ufefffile,gap,note\r\nc0.cif,1.5,x\r\n\r\nc1,,y\r\nPOSCAR-9,na,\r\n"
    table = read_table(write_csv(folder, text))
    assert table.name == "labels"
    assert table.ids == ("c0.cif", "c1", "POSCAR-9")
    assert [round(structure.lattice.a, 6) for structure in table.structures] == [4, 5, 9]
    np.testing.assert_array_equal(table.column("gap"), [1.5, np.nan, np.nan])
    assert table.columns["note"].tolist() == ["x", "y", ""]


def test_csv_without_labels_is_enough_to_predict(folder: Path) -> None:
    table = read_table(write_csv(folder, "file\nc0\nc2\n"))
    assert table.ids == ("c0", "c2") and table.columns == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header line and at least one row"),
        ("file,gap\n", "header line and at least one row"),
        ("c0,1.5\nc1,2\n", "column names must be words"),
        ("file,gap,gap\nc0,1,2\n", "more than once:\n  gap"),
        ("file,gap\nc0,1\nc1\nc2,1,5\n", "(?s)line 3: 1 cells, the header has 2.*line 4: 3 cells"),
        ("file,gap\nx,1\nc0,2\ny,3\n", "(?s)line 2: no file 'x'.*line 4: no file 'y'"),
        ("file,gap\nc0,1\nc0,2\n", "more than once; make them unique:\n  c0"),
    ],
)
def test_bad_csv_is_explained(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read_table(write_csv(folder, text))
    assert "labels.csv" in str(error.value)


def test_csv_in_another_encoding_is_refused(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_bytes("file,größe\nc0,1\n".encode("utf-16"))
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_table(path)


def with_rows(*rows: list[Any]) -> dict[str, list[Any]]:
    return {"index": list(range(len(rows))), "columns": ["structure", "gap"], "data": list(rows)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "a table is"),
        ({"index": [], "columns": []}, "a table is"),
        ({"index": [0], "columns": ["structure"], "data": "x"}, "a table is"),
        (with_rows(), "0 rows"),
        ({"index": [0], "columns": ["structure"], "data": [[1], [2]]}, "1 entries .* 2 rows"),
        (with_rows([1], {}, [1, 2, 3]), "(?s)row 0: .*row 1: .*row 2: "),
        ({"index": [0], "columns": ["gap"], "data": [[1]]}, "no column 'structure' among gap"),
        ({"index": [0], "columns": ["structure", 1], "data": [[1, 2]]}, "column names must be"),
        (with_rows([{"@class": "Path"}, 1], [None, 1]), "(?s)row 0: not a pymatgen.*row 1: not"),
        ({**layout(gap=[1, 2]), "index": ["a", "a"]}, "more than once; make them unique:\n  a"),
    ],
)
def test_bad_json_is_explained(write: Callable[[Any], Path], content: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read_table(write(content))
    assert "some.table.json.gz" in str(error.value)


def test_many_bad_rows_are_counted(write: Callable[[Any], Path]) -> None:
    with pytest.raises(UserError, match="row 9: ") as error:
        read_table(write(with_rows(*[[None, 1]] * 25)))
    assert "... and 15 more" in str(error.value) and "row 10" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json.gz", b"{}", "not a complete gzip file"),
        ("a.json.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-12], "not a complete gzip file"),
        ("a.json.gz", gzip.compress(b"{", mtime=0), "not JSON"),
        ("a.json", b"\xff\xfe\xfd", "not JSON"),
        ("a.json", b"[" * 200_000, "not JSON"),
        ("a.json", b"\r\n" + b"\xef\xbb\xbf[]", "not JSON"),
        ("a.parquet", b"", "unknown suffix"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_missing_file_and_unknown_bundled_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file .*nothing.json.gz"):
        read_table(tmp_path / "nothing.json.gz")
    for name in ("dielectrics", "../bundled/dielectric", ""):
        with pytest.raises(UserError, match="there are: dielectric, formation_energy, piezo"):
            read_table(f"bundled:{name}")


def test_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matbench, "_FREE_BYTES", 2**20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**23))
    with pytest.raises(UserError, match="expand to more than"):
        read_table(path)


def test_a_table_that_is_too_large_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(matbench, "_MAX_BYTES", 100)
    path = tmp_path / "large.json"
    path.write_bytes(b" " * 101)
    with pytest.raises(UserError, match="large.json: more than 100 bytes"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "n_rows", "label", "low", "high"),
    [
        ("dielectric", 1056, "poly_total", 2.08, 277.78),
        ("piezoelectric", 941, "eij_max", 6e-6, 46.192855),
        ("formation_energy", 3938, "e_form", -4.451349734501818, 2.3394220774224146),
    ],
)
def test_bundled_tables(name: str, n_rows: int, label: str, low: float, high: float) -> None:
    table = read_table(f"bundled:{name}")
    labels = table.column(label)
    assert (table.name, len(table.ids), len(table.structures)) == (name, n_rows, n_rows)
    assert (labels.min(), labels.max()) == (low, high)
    assert all(id.startswith("mp-") for id in table.ids)


def test_bundled_files_are_those_of_the_readme() -> None:
    folder = resources.files("jaxmat.data") / "bundled"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    sums = dict(re.findall(r"^\| `(\w+)` .*`(\w{64})` \|$", readme, flags=re.MULTILINE))
    assert set(sums) == {"dielectric", "piezoelectric", "formation_energy"}
    for name, expected in sums.items():
        content = gzip.decompress((folder / f"{name}.json.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected


def test_first_crystal_of_the_dielectric_table() -> None:
    table: Table = read_table("bundled:dielectric")
    structure = table.structures[0]
    assert (table.ids[0], table.column("poly_total")[0], structure.formula) == (
        "mp-441",
        6.23,
        "Rb2 Te1",
    )
    assert structure.lattice.matrix[1].tolist() == [1.757259, 4.970278, 3.043661]
    assert structure.frac_coords[1].tolist() == [0.75, 0.75, 0.75]
