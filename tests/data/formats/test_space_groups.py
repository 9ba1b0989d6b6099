"""Names of space groups: however they are written, or refused; never another setting."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest

from jaxmat.data.formats.cif import parse_cif
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.formats.space_groups import all_settings, find_by_name
from jaxmat.errors import UserError

from ...cifs import cell_lines

CIF = """data_x
{symmetry}
{cell}
{more}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Fe1 Fe 0.11 0.23 0.36
"""
HM, NUMBER, HALL = (
    "_symmetry_space_group_name_H-M",
    "_symmetry_Int_Tables_number",
    "_symmetry_space_group_name_Hall",
)


def read(
    symmetry: str, cell: tuple[float, ...] = (9, 9, 9), more: str = ""
) -> tuple[int, list[str]]:
    """Returns how many atoms there are, and the remarks."""
    a, b, c = cell
    text = CIF.format(symmetry=symmetry, cell=cell_lines(a, b, c), more=more)
    content, remarks = one_atom_a_site(parse_cif(text))
    return len(content.atomic_number), remarks


def names(text: str, gamma: float = 90) -> list[str]:
    return [group.xhm() for group in find_by_name(text, 90, gamma)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'F m -3 m' 'Fm-3m' 'fm-3m' 'FM-3M' 'F_m_-3_m' 'F m 3 m' 'Fm3m'", "F m -3 m"),
        ("'F 4/m -3 2/m' 'F4/m-32/m' 'Fm-3m (225)' 'F m - 3 m' 'Fm-3m #225'", "F m -3 m"),
        ("'P2(1)/c' 'P 2_1/c' 'P 21/c' 'P21 / c' 'P 1 21/c 1' 'P2_{1}/c'", "P 1 21/c 1"),
        ("'P6(3)/mmc' 'P6_3/mmc' 'P 63/m 2/m 2/c' 'P 63/m m c'", "P 63/m m c"),
        ("'P 21/n 21/m 21/a' 'P2(1)/n2(1)/m2(1)/a' 'Pnma' 'PNMA'", "P n m a"),
        ("'P 2/m -3' 'Pm3' 'P m -3 :1' 'P m -3 O1'", "P m -3"),
        ("'F d -3 m S' 'Fd-3mS' 'Fd-3m:1' 'Fd-3m O1' 'Fd3m (origin choice 1)'", "F d -3 m:1"),
        ("'F d -3 m Z' 'Fd-3mZ' 'Fd-3m :2' 'Fd-3m(2)' 'F 41/d -3 2/m :2'", "F d -3 m:2"),
        ("'R -3 m :H' 'R-3mH' 'R -3 m H' 'R-3m(H)' 'R -3 2/m h'", "R -3 m:H"),
        ("'R -3 m :R' 'R-3mR' 'R -3 m r'", "R -3 m:R"),
        ("'P 4/m 2/m 2/m' 'P4/mmm' 'P 4/m m m'", "P 4/m m m"),
        ("'C m c e' 'Cmce' 'C 2/m 2/c 21/e'", "C m c a"),
        ("'P \N{MINUS SIGN}1' 'P-1'", "P -1"),
    ],
)
def test_names_are_known_however_they_are_written(written: str, meant: str) -> None:
    texts = written.strip("'").split("' '")
    if meant == "F d -3 m:2":
        texts.remove("Fd-3m(2)")  # may be a remark as well as an origin
    assert {text: names(text) for text in texts} == {text: [meant] for text in texts}


@pytest.mark.parametrize("name", ["F d -3 m", "Fd3m", "C c c e", "Ccca", "P n n n", "I41/amd"])
def test_both_origins_are_meant_where_none_is_told(name: str) -> None:
    second, first = names(name)
    assert (second[-2:], first[-2:]) == (":2", ":1") and second[:-1] == first[:-1]


def test_the_axes_of_a_rhombohedral_group_are_those_of_the_cell() -> None:
    assert (names("R -3 m", 120), names("R -3 m")) == (["R -3 m:H"], ["R -3 m:R"])


def test_every_name_of_gemmi_is_known_with_blanks_and_without() -> None:
    for group in gemmi.spacegroup_table():
        if group.hm[-1] in "a)" and "2a" in group.hm:
            continue  # of CCP4, for which gemmi itself does not look
        for text in (group.xhm(), group.xhm().replace(" ", "_"), group.xhm().replace(":", " :")):
            assert group in find_by_name(text), text
        compact = find_by_name(group.xhm().replace(" ", ""))
        # P32 is P 32, not P 3 2.
        assert group in compact or group.hm in ("P 3 2", "P 3 2 1"), group.xhm()


@pytest.mark.parametrize(
    "name", ["C 4/m m m", "H -3 m 1", "B 1 21/c 1", "P n m a:cab", "P -3 m", "X", "Fm-3m:H", ""]
)
def test_what_is_not_understood_is_no_name(name: str) -> None:
    assert names(name) == []


@pytest.mark.parametrize(
    ("symmetry", "cell"),
    [
        (f"{HM} 'C 4/m m m'\n{NUMBER} 123", (9, 9, 7)),  # half of the atoms were missing
        (f"{HM} 'P n m a:cab'\n{NUMBER} 62", (9, 8, 7)),
        (f"{HM} 'Xnma'\n{NUMBER} 62", (9, 8, 7)),
        (f"{HM} 'H -3 m 1'\n{NUMBER} 166", (9, 9, 9)),
        (f"{HALL} 'nonsense'\n{NUMBER} 62", (9, 8, 7)),
    ],
)
def test_a_name_that_is_not_known_is_not_replaced_by_the_standard_setting(
    symmetry: str, cell: tuple[float, ...]
) -> None:
    with pytest.raises(UserError, match="is not known: write its symmetry operations"):
        read(symmetry, cell)
    listed = f"{symmetry}\nloop_\n_symmetry_equiv_pos_as_xyz\nx,y,z -x,-y,-z"
    assert read(listed, cell)[0] == 2


@pytest.mark.parametrize(
    ("symmetry", "atoms", "remark"),
    [
        (f"{HM} 'P 4/m m m :x'\n{NUMBER} 123", 16, "'P 4/m m m :x' is not known; that of the"),
        (f"{NUMBER} 62", 8, "of the space group 62 the standard setting was taken, P n m a"),
        (f"{HM} 'F m -3 m'\n{NUMBER} 221", 192, "is called F m -3 m and has the number 221"),
        (f"{HM} 'F m -3 m'\n{HALL} 'P 1'", 1, "is called P 1 and F m -3 m"),
        (f"{HM} 'F m -3 m'\n{HALL} 'F m3m'", 192, "'F m3m' is not known; F m -3 m was used"),
    ],
)
def test_a_symmetry_in_doubt_is_remarked_and_has_to_fit(
    symmetry: str, atoms: int, remark: str
) -> None:
    found, remarks = read(symmetry)
    assert found == atoms and any(remark in one for one in remarks)
    with pytest.raises(UserError, match="its symmetry is in doubt"):
        read(symmetry, more="_chemical_formula_sum Fe\n_cell_formula_units_Z 5")


@pytest.mark.parametrize(
    "symmetry",
    [
        f"{NUMBER} 225",
        f"{HM} Fm3m\n{NUMBER} 225",
        f"{HM} 'F 4/m -3 2/m'\n{HALL} '-F 4 2 3'\n{NUMBER} 225",
        f"{HM} unknown\n{NUMBER} 225",
        f"_space_group_name_H-M_alt 'F m -3 m'\n{HM} 'F m 3 m'",
    ],
)
def test_what_is_told_twice_alike_is_in_no_doubt(symmetry: str) -> None:
    assert read(symmetry) == (192, [])


def test_operations_of_any_setting_are_those_of_a_number() -> None:
    listed = (
        "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z -x,-y,-z '1/2+x,1/2-y,1/2+z' '1/2-x,1/2+y,1/2-z'"
    )
    assert read(f"{NUMBER} 14\n{listed}") == (4, [])
    assert "are not those of space group 15" in read(f"{NUMBER} 15\n{listed}")[1][0]
    assert len(all_settings(14)) == len([g for g in gemmi.spacegroup_table() if g.number == 14])
    np.testing.assert_array_equal(sorted({len(one.rotation) for one in all_settings(227)}), [192])
