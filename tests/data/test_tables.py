"""Tables: what people bring is read exactly, and what cannot be used is named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.layouts import opening
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.tables import Table, read_rows, read_table
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
    assert list(table.structures) == [crystal(4 + row) for row in range(3)]
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
        assert read_rows(path, Wanted(column)).ids == ids
    assert read_rows(path).ids == ("mp-1", "mp-2")


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
    table = read_table(write(layout(gap=["x", 1, [2], "1_0", None])))
    with pytest.raises(
        UserError, match=r"(?s)row 10 has 'x'.*row 12 has '\[2\]'.*row 13 has '1_0'"
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
        ("", "it is empty"),
        ("file,gap\n", "at least one row below the header line"),
        (
            "file,gap\nc0,1\nc1\nc2,1,5\n",
            "(?s)line 3: .*1 cells, the header.*line 4: .*3 cells",
        ),
        ("file,gap\nx,1\nc0,2\ny,3\n", "(?s)line 2: .*no file 'x'.*line 4: .*no file 'y'"),
        ("file,gap\nc0,1\nc0,2\n", "more than once; make them unique:\n  c0"),
    ],
)
def test_bad_csv_is_explained(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read_table(write_csv(folder, text))
    assert "labels.csv" in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
def test_csv_is_read_in_the_encodings_of_spreadsheets(folder: Path, encoding: str) -> None:
    path = folder / "labels.csv"
    path.write_bytes("file;größe\r\nc0;1,5\r\nc1;-,5e1\r\nc2;\r\n".encode(encoding))
    np.testing.assert_array_equal(read_table(path).column("größe"), [1.5, -5, np.nan])


def test_csv_of_pandas_with_its_index(folder: Path) -> None:
    (folder / "sub").mkdir()
    crystal(7).to(str(folder / "sub" / "c0.cif"))
    table = read_table(write_csv(folder, ",path,gap\n7,c0.cif,1.5\n9,sub\\c0.cif,2\n"))
    assert table.ids == ("c0.cif", "sub\\c0.cif")
    assert table.column("index").tolist() == [7, 9]


@pytest.mark.parametrize("names", [("c0", "c1"), ("c0.cif", "c1.cif")])
def test_folders_of_cgcnn_and_alignn(folder: Path, names: tuple[str, str]) -> None:
    """Without a header; the folder is the table."""
    first, second = names
    (folder / "atom_init.json").write_text("{}")
    (folder / "id_prop.csv").write_text(f"{first},1.5\n{second},\n")
    table = read_table(folder)
    assert table.ids == names
    np.testing.assert_array_equal(table.column("target"), [1.5, np.nan])
    (folder / "id_prop.csv").write_text(f"{first},1.5,na\n{second},2,3\n")
    assert list(read_table(folder).columns) == ["target_1", "target_2"]
    named = read_rows(folder, Wanted(labels=("gap", "bulk")))
    np.testing.assert_array_equal(named.columns["bulk"], [np.nan, 3])


def with_rows(*rows: list[Any]) -> dict[str, list[Any]]:
    return {"index": list(range(len(rows))), "columns": ["structure", "gap"], "data": list(rows)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "0 rows"),
        ([1, 2], "recognised: a list whose first item is '1'"),
        ([{"a": 1}], "no structure in its first 1 records; keys of the first: 'a'"),
        ({"index": [], "columns": []}, "a table is"),
        ({"index": [0], "columns": ["structure"], "data": "x"}, "a table is"),
        (with_rows(), "0 rows"),
        (
            {"index": [0], "columns": ["structure"], "data": [[1], [2]]},
            "1 entries in the index and more rows",
        ),
        (
            with_rows([1], {}, [1, 2, 3], [crystal().as_dict(), 1]),
            "(?s)row 0: .*row 1: .*row 2: ",
        ),
        ({"index": [0], "columns": ["gap"], "data": [[1]]}, "no column holds structures.*gap"),
        ({"index": [0], "columns": ["structure", 1], "data": [[1, 2]]}, "column names must be"),
        (
            with_rows([{"@class": "Path"}, 1], [None, 1], [crystal().as_dict(), 1]),
            "(?s)row 0: .*not a structure.*row 1: .*not a structure",
        ),
        ({"@module": "pandas", "@class": "DataFrame", "data": "[]"}, "monty"),
        ({"a": 1}, "recognised: a JSON object with 'a'"),
        ({**layout(gap=[1, 2]), "index": ["a", "a"]}, "more than once; make them unique:\n  a"),
    ],
)
def test_bad_json_is_explained(write: Callable[[Any], Path], content: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read_table(write(content))
    assert "some.table.json.gz" in str(error.value)


def test_many_bad_rows_are_counted(write: Callable[[Any], Path]) -> None:
    with pytest.raises(UserError, match="row 9: ") as error:
        read_table(write(with_rows(*[[None, 1]] * 25, [crystal().as_dict(), 1])))
    assert "... and 15 more" in str(error.value) and "row 10" not in str(error.value)


def _archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "[]")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json.gz", b"\x1f\x8b{}", "cannot be unpacked"),
        ("a.json.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-12], "cannot be unpacked"),
        ("a.json.gz", gzip.compress(b"{", mtime=0), "not JSON"),
        ("a.json", b"\xff\xfe\xfd", "not JSON"),
        ("a.json", b"[" * 200_000, "not JSON.* too deep"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "more digits"),
        ("a.bin", b"abc\0\0", "not text"),
        ("a.xlsx", _archive("xl/workbook.xml"), "an Excel workbook: save it as CSV"),
        ("a.zip", _archive("a.json", "b.json"), "holds 2 files"),
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
    monkeypatch.setattr(opening, "FREE_BYTES", 2**20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b'{"index": [' + b"1, " * 2**21))
    with pytest.raises(UserError, match="expand to more than"):
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


def test_a_header_is_one_beside_a_file_of_that_name(tmp_path):
    """In a folder with a structure.cif, a column called structure was taken for its name."""
    crystal = Structure(Lattice.cubic(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for name in ("structure.cif", "a.cif"):
        crystal.to(str(tmp_path / name))
    (tmp_path / "table.csv").write_text("structure,gap\na.cif,1\n")
    table = read_table(tmp_path / "table.csv")
    assert table.columns.keys() == {"gap"} and len(table.ids) == 1
