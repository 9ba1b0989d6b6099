"""Inputs of a prediction: every crystal gets a place, in order; a bad one harms no other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.inputs import Input, find_inputs
from jaxmat.errors import UserError


def crystal(edge: float = 4.0) -> Structure:
    return Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def frame(edge: float) -> str:
    cell = f"{edge} 0 0 0 {edge} 0 0 0 {edge}"
    return f'2\nLattice="{cell}"\nNa 0 0 0\nCl {edge / 2} {edge / 2} {edge / 2}\n'


def outcome(entry: Input) -> float | str:
    """Returns the cell's edge, or why there is none."""
    try:
        return round(entry.read().lattice.a, 6)
    except UserError as problem:
        return str(problem)


def outcomes(sources) -> dict[str, float | str]:
    return {entry.id: outcome(entry) for entry in find_inputs(sources)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    crystal(4).to(str(tmp_path / "b.cif"))
    crystal(5).to(str(tmp_path / "a.json"))
    crystal(6).to(str(tmp_path / "deep" / "er" / "POSCAR"), fmt="poscar")
    (tmp_path / "deep" / "c.extxyz").write_text(frame(7))
    (tmp_path / "deep" / "d.xyz").write_text(frame(8) + frame(9) + "rubbish\n")
    (tmp_path / "deep" / "e.cif").write_text("no crystal")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_a_folder_gives_all_its_files_in_order(folder, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    with caplog.at_level("INFO"):
        found = outcomes(".")
    assert "1 files whose names do not say" in caplog.text
    bad_cif, bad_frame = found.pop("deep/e.cif"), found.pop("deep/d.xyz@2")
    assert "deep/e.cif" in bad_cif and "expected a number of atoms" in bad_frame
    assert found == {
        "a.json": 5,
        "b.cif": 4,
        "deep/c.extxyz": 7,
        "deep/d.xyz@0": 8,
        "deep/d.xyz@1": 9,
        "deep/er/POSCAR": 6,
    }
    names = [entry.id for entry in find_inputs(["deep/er", "b.cif", "a.json", "b.cif"])]
    assert names == ["deep/er/POSCAR", "b.cif", "a.json", "b.cif"]


def test_structures_are_numbered():
    inputs = find_inputs([crystal(4), crystal(5)])
    assert [(entry.id, outcome(entry)) for entry in inputs] == [("0", 4), ("1", 5)]
    assert [entry.id for entry in find_inputs(crystal())] == ["0"]
    assert find_inputs([]) == []


def test_rows_of_tables_fail_one_by_one(folder):
    rows = [[crystal(4).as_dict(), 1], [None, 2], [crystal(6).as_dict(), None]]
    layout = {"index": ["x", "y", "z"], "columns": ["structure", "gap"], "data": rows}
    for name in ("t.json", "t.json.gz"):
        content = json.dumps(layout).encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        found = outcomes(folder / name)
        assert "not a pymatgen structure" in str(found.pop("y"))
        assert found == {"x": 4, "z": 6}
    (folder / "t.csv").write_text("file,gap\nb,1\na\nnowhere,2\na.json,inf\n")
    found = outcomes(str(folder / "t.csv"))
    assert list(found) == ["b", "a", "nowhere", "a.json"]
    assert found["b"] == 4 and found["a.json"] == 5
    assert "1 cells, the header has 2" in found["a"] and "no file 'nowhere'" in found["nowhere"]


def test_bundled_tables_are_inputs():
    inputs = find_inputs("bundled:dielectric")
    assert len(inputs) == 1056
    assert (inputs[0].id, inputs[0].read().formula) == ("mp-441", "Rb2 Te1")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nowhere", None, "there is no file or folder nowhere"),
        ("nowhere.cif", None, "there is no file or folder nowhere.cif"),
        ("nowhere.csv", None, "there is no file nowhere.csv"),
        ("nowhere.json", None, "there is no file or folder nowhere.json"),
        ("bundled:nowhere", None, "no bundled table 'nowhere'"),
        ("empty.csv", b"", "expected a header line"),
        ("broken.json.gz", b"{}", "not a complete gzip file"),
        ("broken.json", b"{", "broken.json: cannot be read"),
        ("table.json", b'{"columns": []}', "a table is"),
        ("empty.xyz", b"", "expected a number of atoms"),
        ("structure.txt", b"", "unknown format"),
    ],
)
def test_what_cannot_be_opened_is_one_input(tmp_path, monkeypatch, name, content, reason):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    found = outcomes([name, crystal()])
    assert found.keys() == {name, "1"} and reason in str(found[name])


def test_a_folder_without_structures_is_one_input(tmp_path):
    (tmp_path / "table.csv").touch()
    assert "holds no CIF" in str(outcomes(tmp_path)[str(tmp_path)])
