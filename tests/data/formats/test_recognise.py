"""Structure files and dicts: one crystal from every format, nothing executed, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.checks import MAX_SITES
from jaxmat.data.formats.dicts import parse_dict
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.layouts import files
from jaxmat.data.layouts.files import read_structure_file
from jaxmat.errors import UserError

from ...cifs import cell_lines

JARVIS = (
    '{"lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "elements": ["Na"], "coords": [%s], '
    '"cartesian": %s}'
)
NACL = Structure(
    Lattice.from_parameters(4, 4.1, 5, 80, 95, 110), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.4, 0.3]]
)


def read_structure(path: Path) -> Structure:
    return one_atom_a_site(read_structure_file(path))[0].structure()


def structure_from_dict(data: object) -> Structure:
    return one_atom_a_site(parse_dict(data))[0].structure()


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


@pytest.mark.parametrize("comment", ["[Na] test", "{x}", "data_set 3", "loop_", "2", ""])
def test_the_comment_of_a_poscar_may_be_anything(tmp_path: Path, comment: str) -> None:
    text = NACL.to(fmt="poscar").partition("\n")[2]
    path = tmp_path / "a.vasp"
    path.write_text(f"{comment}\n{text}")
    assert read_structure(path).formula == NACL.formula


CIF_BLOCK = f"""data_{{name}}
{cell_lines()}
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe Fe1 0 0 0 {{occupancy}}
"""


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.cif", CIF_BLOCK.format(name="a", occupancy=2), "Fe1 has the occupancy 2"),
        ("a.cif", CIF_BLOCK.format(name="a", occupancy=1) * 2, "duplicate block name: a"),
        (
            "a.cif",
            CIF_BLOCK.format(name="a", occupancy=1) + CIF_BLOCK.format(name="b", occupancy=1),
            "holds 2 structures",
        ),
        ("a.cif", "", "it is empty"),
        ("a.cif", "not a cif", "line 1: expected data_NAME"),
        ("POSCAR", "", "it is empty"),
        ("POSCAR", "x\n1\n4 0 0\n0 4 0\n0 0 4\n1\ndirect\n0 0 0\n", "does not name its elements"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "not a structure"),
        ("a.json", NACL.to_json().replace('"occu": 1', '"occu": "1_0"', 1), "one number"),
        ("a.json", JARVIS % ('["1", "0", "0"]', "false"), "rows of three numbers"),
        ("a.json", JARVIS % ("[0, 0, 0]", '"no"'), "'cartesian' is 'no', not true or false"),
        ("a.txt", "x", "unknown format"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        read_structure(path)


def test_giants_are_refused_before_they_are_built(tmp_path: Path, monkeypatch) -> None:
    site = {"species": [{"element": "Fe", "occu": 1}], "abc": [0, 0, 0]}
    with pytest.raises(UserError, match="size: it has 10001 sites"):
        structure_from_dict({**NACL.as_dict(), "sites": [site] * (MAX_SITES + 1)})
    path = tmp_path / "a.xyz"
    path.write_text("10001\n" + FRAME[2:] + "Na 0 0 0\n" * (MAX_SITES - 1))
    with pytest.raises(UserError, match="size: it has 10001 sites"):
        read_structure(path)
    path = tmp_path / "a.cif"
    atoms = "".join(f"Fe Fe{i} 0.1 0.2 0.{i + 1000} 1\n" for i in range(3000))
    name = "a\n_symmetry_space_group_name_H-M 'Fm-3m'"
    path.write_text(CIF_BLOCK.format(name=name, occupancy=1) + atoms)
    with pytest.raises(UserError, match="576192 sites.*symmetry operations times atoms"):
        read_structure(path)
    monkeypatch.setattr(files, "MAX_VALUE", 1000)
    with pytest.raises(UserError, match="more than 1000 bytes"):
        read_structure(path)


def test_dict_round_trip_is_exact() -> None:
    decorated = NACL.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    for structure in (NACL, decorated):
        read = structure_from_dict(json.loads(json.dumps(structure.as_dict())))
        assert read == NACL
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
    with pytest.raises(UserError, match="structure|size: it has no sites|element"):
        structure_from_dict(data)


FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2 2\n'


def test_extended_xyz_with_one_frame_is_a_structure_file(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    path.write_text(FRAME)
    expected = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert read_structure(path) == expected
    path.write_text(2 * FRAME)
    with pytest.raises(UserError, match="holds 2 structures"):
        read_structure(path)
