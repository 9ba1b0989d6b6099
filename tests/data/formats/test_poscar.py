"""POSCAR: scales, volumes, symbols wherever they stand, and counts that are kept."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.io.vasp import Poscar

from jaxmat.data.formats.poscar import parse_poscar
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

LINES = ["zinc blende", "5.41", "0 .5 .5", ".5 0 .5", ".5 .5 0", "Zn S", "1 1", "Cartesian"]
LINES += ["0 0 0", ".25 .25 .25"]


def poscar(**changes: str) -> str:
    """Returns the file with some lines, numbered from 1, replaced; "" leaves one out."""
    lines = dict(enumerate(LINES, start=1)) | {int(k[1:]): v for k, v in changes.items()}
    return "\n".join(line for _, line in sorted(lines.items()) if line)


def read(text: str):
    return one_atom_a_site(parse_poscar(text))[0].structure()


@pytest.mark.parametrize("direct", [True, False])
def test_what_pymatgen_writes_is_read(direct: bool) -> None:
    for crystal in read_table("bundled:dielectric").structures[:5]:
        found = read(Poscar(crystal).get_str(direct=direct, significant_figures=15))
        np.testing.assert_allclose(found.lattice.matrix, crystal.lattice.matrix, atol=1e-9)
        assert [site.specie.Z for site in found] == [site.specie.Z for site in crystal]
        np.testing.assert_allclose(found.cart_coords, crystal.cart_coords, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"_2": "-39.585355"},
        {"_2": "5.41 5.41 5.41"},
        {"_2": "5.41d0 ! scale"},
        {"_6": "Zn_pv S/1a2b"},
        {"_6": "", "_1": "Zn S"},
        {"_6": "", "_9": "0 0 0 Zn", "_10": ".25 .25 .25 S"},
        {"_8": "Selective dynamics\nkartesian", "_9": "0 0 0 T T F", "_10": ".25 .25 .25 F F F"},
        {"_8": "direct", "_10": ".25 .25 .25\n\n 0 0 0\n 1 1 1"},
    ],
)
def test_every_way_to_write_it_is_the_same_crystal(changes: dict[str, str]) -> None:
    structure = read(poscar(**changes))
    assert [site.specie.symbol for site in structure] == ["Zn", "S"]
    np.testing.assert_allclose(structure.get_distance(0, 1), 2.3426, atol=1e-4)


def test_fluorine_at_the_end_of_a_line_is_no_flag() -> None:
    """VASP 4: a line of counts, and elements behind the coordinates."""
    ends = {"_6": "", "_9": "0 0 0 Na", "_10": ".25 .25 .25 F"}
    assert read(poscar(**ends)).formula == "Na1 F1"
    flags = {"_8": "Selective dynamics\nDirect", "_9": "0 0 0 T F T Na"}
    assert read(poscar(**ends | flags | {"_10": ".25 .25 .25 F F F F"})).formula == "Na1 F1"
    assert read(poscar(_6="Na F", _10=".25 .25 .25 F")).formula == "Na1 F1"
    with pytest.raises(UserError, match="atom 2 is S by the line of symbols and F at the end"):
        read(poscar(_10=".25 .25 .25 F"))
    assert read(poscar(_10=".25 .25 .25 T")).formula == "Zn1 S1"


def test_three_factors_scale_the_axes() -> None:
    structure = read(poscar(_2="4 5 6", _3="1 0 0", _4="0 1 0", _5="0 0 1"))
    np.testing.assert_allclose(structure.lattice.abc, [4, 5, 6])
    np.testing.assert_allclose(structure[1].coords, [1, 1.25, 1.5])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_7": "400000000 1"}, "size: it has 400000001 sites"),
        ({"_7": "2 1"}, "promise 3 atoms, 2 lines follow"),
        ({"_7": "1"}, "2 symbols and 1 counts"),
        ({"_7": "one two"}, "line 7: expected the number of atoms"),
        ({"_7": "１ 1"}, "line 7: expected the number of atoms"),
        ({"_9": "1_0 0 0"}, "line 9: expected three numbers"),
        ({"_2": "0"}, "line 2: expected a scale factor above zero"),
        ({"_2": "nan"}, "line 2: expected a scale factor above zero"),
        ({"_2": "1 -1 1"}, "line 2: expected a scale factor above zero"),
        ({"_3": "0 .5"}, "line 3: expected three numbers, found '0 .5'"),
        ({"_3": "0 0 0"}, "span no volume"),
        ({"_6": "", "_1": "zinc blende"}, "does not name its elements"),
        ({"_6": "Qq S"}, "'Qq' is not an element"),
        ({"_8": "fractional"}, "line 8: expected Direct or Cartesian"),
        ({"_9": "0 0 x"}, "line 9: expected three numbers"),
        ({"_9": "0 0 0 S"}, "atom 1 is Zn by the line of symbols and S at the end"),
    ],
)
def test_what_cannot_be_read_says_why(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(poscar(**changes))
