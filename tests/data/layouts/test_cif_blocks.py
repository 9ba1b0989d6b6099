"""CIFs of several crystals: each data block is one, and none is taken for another."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data import reading
from jaxmat.data.reading import read
from jaxmat.data.tables import read_rows
from jaxmat.errors import UserError


def block(name: str, edge: float) -> str:
    crystal = Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return "".join(crystal.to(fmt="cif").partition("data_")[1:]).replace("NaCl", name, 1)


def edges(path: Path) -> dict[str, float | str]:
    return {
        entry.id: round(float(entry.content.lattice[0, 0]), 6) if entry.content else entry.reason
        for entry in read(path)
    }


@pytest.mark.parametrize("name", ["a.cif", "a.cif.gz"])
@pytest.mark.parametrize("start", ["", "# export of a database\n\n", "data_global\n_a b\n"])
def test_each_block_is_a_crystal(tmp_path: Path, name: str, start: str) -> None:
    path = tmp_path / name
    text = start + block("one", 4) + "\n#END\n" + "  DATA_two\n" + block("x", 5)[6:]
    text += block("one", 6) + "data_nothing\n_a b\n" + "_atom_site_fract_x 1\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = edges(path)
    assert "it has no _cell_length_a" in str(found.pop(f"{path}#nothing"))
    assert found == {f"{path}#one": 4, f"{path}#two": 5, f"{path}#one (2)": 6}


@pytest.mark.parametrize(
    "text",
    [
        block("one", 4),
        "data_global\n_a b\n" + block("one", 4) + "data_end\n_a b\n",
        block("one", 4) + "_b\n;\ndata_x\n_atom_site_fract_x 1\n;\n",
        "data_title\n_a b\n" + "# long\n" * 9000 + block("one", 4),
    ],
)
def test_one_crystal_is_named_by_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.cif"
    path.write_text(text)
    assert edges(path) == {str(path): 4}


def test_a_block_that_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    broken = block("broken", 5).replace("_cell_length_b", "_cell_width")
    path.write_text(block("one", 4) + broken + block("two", 6))
    found = edges(path)
    assert "it has no _cell_length_b" in str(found.pop(f"{path}#broken"))
    assert found == {f"{path}#one": 4, f"{path}#two": 6}


def test_a_row_of_a_table_has_one_crystal(tmp_path: Path) -> None:
    """Which of several a label would be of is not known."""
    (tmp_path / "a.cif").write_text(block("one", 4) + block("two", 5))
    (tmp_path / "id_prop.csv").write_text("a,1.5\n")
    (reason,) = read_rows(tmp_path).reasons
    assert "holds 2 structures (one, two)" in reason


def test_many_blocks_are_read_by_processes_in_their_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "_WORTH_SHARING", 0)
    path = tmp_path / "a.cif"
    path.write_text("".join(block(f"c{i}", 4 + i / 100) for i in range(200)))
    found = [entry.id.partition("#")[2] for entry in read(path, workers=1)]
    assert found == [f"c{i}" for i in range(200)]


def test_labels_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(block("one", 4) + block("two", 5))
    rows = read_rows(tmp_path / "a.cif")
    assert len(rows.ids) == 2 and rows.columns == {}


def test_a_block_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    from jaxmat.data.layouts import cif_blocks

    monkeypatch.setattr(cif_blocks, "MAX_VALUE", 10_000)
    path = tmp_path / "a.cif"
    path.write_text(block("one", 4) + block("two", 4) + "_x y\n" * 10_000)
    with pytest.raises(UserError, match="block 'two' has more than 10000 characters"):
        read_rows(path)


def test_ids_of_a_table_do_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    """Else a split that was written is not that of the same file elsewhere."""
    (tmp_path / "a.cif").write_text(block("one", 4) + block("two", 5))
    assert read_rows(tmp_path / "a.cif").ids == ("a.cif#one", "a.cif#two")
    frame = '2\nLattice="4 0 0 0 4 0 0 0 4" gap=1\nNa 0 0 0\nCl 2 2 2\n'
    (tmp_path / "a.xyz").write_text(2 * frame)
    assert read_rows(tmp_path / "a.xyz").ids == ("a.xyz@0", "a.xyz@1")
