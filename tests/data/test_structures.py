"""Structure files and dicts: one crystal from every format, nothing executed, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.checks import MAX_SITES
from jaxmat.data import structures
from jaxmat.data.structures import (
    find_structure_file,
    read_structure,
    structure_from_dict,
    structure_readers,
)
from jaxmat.errors import UserError

NACL = Structure(
    Lattice.from_parameters(4, 4.1, 5, 80, 95, 110), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.4, 0.3]]
)


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.cif", "cif"), ("POSCAR-1", "poscar"), ("CONTCAR", "poscar"), ("a.json", "json")]
    + [("a.vasp", "poscar"), ("A.CIF", "cif"), ("Zürich salt.poscar", "poscar")],
)
def test_every_format_gives_the_crystal(tmp_path: Path, name: str, format: str) -> None:
    path = tmp_path / name
    path.write_text(NACL.to(fmt=format))
    structure = read_structure(path)
    assert [site.specie.symbol for site in structure] == ["Na", "Cl"]
    np.testing.assert_allclose(structure.distance_matrix, NACL.distance_matrix, atol=1e-6)


def test_old_encodings_and_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.cif"
    text = "# Schrödinger\n" + NACL.to(fmt="cif")
    path.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    assert read_structure(path).formula == NACL.formula


CIF_BLOCK = """data_{name}
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe Fe1 0 0 0 {occupancy}
"""


@pytest.mark.filterwarnings("ignore")  # pymatgen's remarks on the files
@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.cif", CIF_BLOCK.format(name="a", occupancy=2), "Occupancy 2.0 exceeded tolerance"),
        ("a.cif", CIF_BLOCK.format(name="a", occupancy=1) * 2, None),
        (
            "a.cif",
            CIF_BLOCK.format(name="a", occupancy=1) + CIF_BLOCK.format(name="b", occupancy=1),
            "holds 2 structures",
        ),
        ("a.cif", "", "a.cif: "),
        ("a.cif", "not a cif", "a.cif: "),
        ("POSCAR", "", "POSCAR: "),
        ("POSCAR", "x\n1\n4 0 0\n0 4 0\n0 0 4\n1\ndirect\n0 0 0\n", "does not name its elements"),
        ("a.json", "{", "a.json: cannot be read"),
        ("a.json", "[]", "not a pymatgen structure"),
        ("a.txt", "", "unknown format"),
    ],
)
def test_unusable_files_are_refused(
    tmp_path: Path, name: str, text: str, reason: str | None
) -> None:
    path = tmp_path / name
    path.write_text(text)
    if reason is None:
        assert read_structure(path).formula == "Fe1"
        return
    with pytest.raises(UserError, match=reason) as error:
        read_structure(path)
    assert str(path) in str(error.value)


def test_suffix_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "mp-1.5.cif").touch()
    (tmp_path / "mp-1.5.cif.json").touch()
    assert find_structure_file(tmp_path, "mp-1.5").name == "mp-1.5.cif"
    assert find_structure_file(tmp_path, "mp-1.5.cif").name == "mp-1.5.cif"
    for missing in ("mp-1", "", "x" * 300, "a\0b", "."):
        with pytest.raises(UserError, match="no file"):
            find_structure_file(tmp_path, missing)


@pytest.mark.filterwarnings("ignore:No _symmetry")  # pymatgen's remark
def test_giants_are_refused_before_they_are_built(tmp_path: Path, monkeypatch) -> None:
    """Pymatgen would take minutes for some of these, and gigabytes."""
    site = {"species": [{"element": "Fe", "occu": 1}], "abc": [0, 0, 0]}
    with pytest.raises(UserError, match="size: it has 10001 sites"):
        structure_from_dict({**NACL.as_dict(), "sites": [site] * (MAX_SITES + 1)})
    path = tmp_path / "a.xyz"
    path.write_text("10001\n" + FRAME[2:] + "Na 0 0 0\n" * (MAX_SITES - 1))
    with pytest.raises(UserError, match="size: it has 10001 sites"):
        read_structure(path)
    path = tmp_path / "a.cif"
    atoms = "".join(f"Fe Fe{i} 0.1 0.2 0.{i + 1000} 1\n" for i in range(105))
    path.write_text(
        CIF_BLOCK.format(name="a\n_symmetry_space_group_name_H-M 'Fm-3m'", occupancy=1) + atoms
    )
    with pytest.raises(UserError, match="20352 sites.*symmetry operations times atoms"):
        read_structure(path)
    monkeypatch.setattr(structures, "_MAX_BYTES", 1000)
    with pytest.raises(UserError, match="a.cif: has .* bytes, more than 1000"):
        read_structure(path)


def test_dict_round_trip_is_exact() -> None:
    decorated = NACL.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    for structure in (NACL, decorated):
        read = structure_from_dict(json.loads(json.dumps(structure.as_dict())))
        assert read == structure
        assert np.array_equal(read.lattice.matrix, structure.lattice.matrix)
        assert np.array_equal(read.frac_coords, structure.frac_coords)


def test_a_dict_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pymatgen's own reader imports the modules that site properties name."""
    (tmp_path / "trap.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    data = NACL.as_dict()
    data["sites"][0]["properties"] = {"magmom": {"@module": "trap", "@callable": "run"}}
    assert structure_from_dict(data).site_properties == {}


@pytest.mark.parametrize(
    "data",
    [None, 3, [], {}, {"@class": "Molecule"}, {"@class": "Structure"}]
    + [{"@class": "Structure", "lattice": {"matrix": "x"}, "sites": []}]
    + [{**NACL.as_dict(), "sites": [{"species": [{"element": "Qq", "occu": 1}], "abc": [0, 0, 0]}]}]
    + [{**NACL.as_dict(), "sites": [{"species": [{"element": "H", "occu": 1}], "abc": "abc"}]}],
)
def test_malformed_dicts_are_refused(data: object) -> None:
    with pytest.raises(UserError, match="structure"):
        structure_from_dict(data)


FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2 2\n'


def test_extended_xyz_with_one_frame_is_a_structure_file(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    path.write_text(FRAME)
    expected = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert read_structure(find_structure_file(tmp_path, "a")) == expected
    path.write_text(2 * FRAME)
    with pytest.raises(UserError, match="a.extxyz: holds 2 structures"):
        read_structure(path)
    assert [read() for read in structure_readers(path)] == [expected, expected]
