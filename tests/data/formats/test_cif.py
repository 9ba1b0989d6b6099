"""CIF: what a file says of itself is held against what was read."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser, CifWriter

from jaxmat.data.formats.cif import parse_cif
from jaxmat.data.formats.formula import parse_formula
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

FCC = "'x,y,z' 'x,y+1/2,z+1/2' 'x+1/2,y,z+1/2' 'x+1/2,y+1/2,z'"
COLUMNS = "label type_symbol fract_x fract_y fract_z occupancy"
SALT = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1\n"


# Distances within the cell, Å: three neighbours, the fourth is opposite.
ROCK_SALT = [0.0, 2.82, 2.82, 2.82, 3.988, 3.988, 3.988, 4.884]


def cif(
    atoms: str = SALT,
    *,
    columns: str = COLUMNS,
    symmetry: str = f"loop_\n_symmetry_equiv_pos_as_xyz\n{FCC}",
    cell: str = "5.64 5.64 5.64 90 90 90",
    more: str = "_chemical_formula_sum 'Na Cl'",
) -> str:
    names = [f"length_{x}" for x in "abc"] + [f"angle_{x}" for x in ("alpha", "beta", "gamma")]
    lines = [f"_cell_{name} {value}" for name, value in zip(names, cell.split(), strict=True)]
    header = "\n".join(f"_atom_site_{name}" for name in columns.split())
    return "\n".join(["data_x", more, *lines, symmetry, "loop_", header, atoms])


def read(text: str) -> tuple[Structure, list[str]]:
    content, remarks = one_atom_a_site(parse_cif(text))
    return content.structure(), remarks


@pytest.mark.parametrize("symprec", [None, 0.01])
def test_what_pymatgen_writes_is_what_pymatgen_reads(symprec: float | None) -> None:
    crystals = read_table("bundled:formation_energy").structures
    same = StructureMatcher(0.01, 0.02, 0.5, primitive_cell=False, scale=False)
    for row in np.random.RandomState(0).permutation(len(crystals))[:12]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(CifWriter(crystals[row], symprec=symprec))
            (expected,) = CifParser.from_str(text).parse_structures(primitive=False)
        found, remarks = read(text)
        assert remarks == [] and found.composition == expected.composition
        np.testing.assert_allclose(found.lattice.abc, expected.lattice.abc)
        assert same.fit(found, expected)


@pytest.mark.parametrize(
    "symmetry",
    [
        "_space_group_name_H-M_alt 'F m -3 m'",
        "_symmetry_space_group_name_H-M Fm-3m",
        "_symmetry_space_group_name_Hall '-F 4 2 3'",
        "_space_group_IT_number 225",
        "_symmetry_Int_Tables_number 225\n_symmetry_space_group_name_H-M ?",
        "loop_\n_space_group_symop_magn_operation.xyz\n'x,y,z,+1'\n'-x,-y,-z,-1'\n"
        "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1 x,y+1/2,z+1/2,+1\n"
        "x+1/2,y,z+1/2,-1 x+1/2,y+1/2,z,-1",
    ],
)
def test_symmetry_is_found_wherever_it_stands(symmetry: str) -> None:
    structure, remarks = read(cif(symmetry=symmetry))
    assert (structure.formula, remarks) == ("Na4 Cl4", [])
    assert np.round(np.sort(structure.distance_matrix[0]), 3).tolist() == ROCK_SALT


def test_the_origin_that_a_name_leaves_open_is_that_of_the_formula() -> None:
    """Silicon in either origin of Fd-3m; the other one would give other crystals."""
    for place in ("0 0 0", "0.125 0.125 0.125"):
        text = cif(
            f"Si1 Si {place} 1",
            symmetry="_symmetry_space_group_name_H-M 'F d -3 m'",
            cell="5.43 5.43 5.43 90 90 90",
            more="_chemical_formula_sum Si\n_cell_formula_units_Z 8",
        )
        structure, remarks = read(text)
        assert len(structure) == 8 and remarks == []
        assert np.round(np.sort(structure.distance_matrix[0])[1], 3) == 2.351


def test_an_origin_that_nothing_tells_is_remarked() -> None:
    text = cif(
        "Si1 Si 0.125 0.125 0.125 1",
        symmetry="_symmetry_space_group_name_H-M 'F d -3 m'",
        cell="5.43 5.43 5.43 90 90 90",
        more="",
    )
    structure, remarks = read(text)
    assert len(structure) == 8 and "leaves the origin open" in remarks[0]


def test_special_positions_given_with_few_digits_are_exact() -> None:
    text = cif(
        "Mg1 Mg 0.3333 0.6667 0.25 1",
        symmetry="_symmetry_space_group_name_H-M 'P 63/m m c'",
        cell="3.2 3.2 5.2 90 90 120",
        more="_chemical_formula_sum Mg",
    )
    places = read(text)[0].frac_coords
    assert len(places) == 2
    np.testing.assert_allclose(np.sort(places[:, :2]), [[1 / 3, 2 / 3]] * 2, atol=1e-15)


@pytest.mark.parametrize(
    ("label", "formula", "element"),
    [("Fe1", "'Fe O'", "Fe"), ("FE1", "'Fe O'", "Fe"), ("O1", "O", "O"), ("Na_a", "Na", "Na")]
    + [("D1", "'H2 O'", "H"), ("CL2", "'Cl Na'", "Cl")],
)
def test_labels_that_are_elements_are_read(label: str, formula: str, element: str) -> None:
    columns = COLUMNS.replace("type_symbol ", "")
    other = {"Fe": "O9", "Cl": "Na9"}.get(element, "")
    atoms = f"{label} 0 0 0 1\n" + (f"{other} 0.5 0.5 0.5 1\n" if other else "")
    formula = formula if other else element
    structure, _ = read(cif(atoms, columns=columns, more=f"_chemical_formula_sum {formula}"))
    assert structure[0].specie.symbol == element


@pytest.mark.parametrize("label", ["OH", "Wat1", "HO1", "VA1", "T1", "X", "M2", "CO1", "1", "Ow1"])
def test_labels_that_may_be_something_else_are_not_guessed(label: str) -> None:
    text = cif(
        f"{label} 0 0 0 1\nC1 0.5 0.5 0.5 1",
        columns=COLUMNS.replace("type_symbol ", ""),
        more="_chemical_formula_sum 'C O Co H'",
    )
    with pytest.raises(UserError, match=f"element: {label} "):
        read(text)


@pytest.mark.parametrize("symbol", ["T", "t", "T4+", "T(iv)"])
def test_a_type_that_may_be_a_site_of_a_zeolite_is_not_taken_for_tritium(symbol: str) -> None:
    atoms = f"X1 {symbol} 0 0 0 1\nO1 O 0.5 0.5 0.5 1"
    for more in ("", "_chemical_formula_sum 'Si O'"):
        with pytest.raises(UserError, match=r"element: '.*' \(X1\) may be tritium"):
            read(cif(atoms, more=more))
    assert read(cif(atoms, more="_chemical_formula_sum 'T O'"))[0].formula == "H4 O4"
    assert read(cif(atoms.replace(symbol, "D"), more=""))[0].formula == "H4 O4"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"more": "_chemical_formula_sum 'Na Cl H2 O'"}, "says Cl1 H2 Na1 O1.*: H, O is missing"),
        ({"more": "_chemical_formula_sum 'Na2 Cl'"}, "the file says Cl1 Na2, the atoms read are"),
        ({"more": "_chemical_formula_sum 'K Cl'"}, "K is missing"),
        ({"symmetry": "", "more": "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4"}, "P1"),
        (
            {"symmetry": "", "more": "_chemical_formula_weight 58.44\n_cell_formula_units_Z 4"},
            "holds 1 formula units, _cell_formula_units_Z says 4.*symmetry is in doubt",
        ),
        (
            {
                "symmetry": "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n"
                "_symmetry_space_group_name_H-M 'F m -3 m'",
                "more": "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4",
            },
            "symmetry operations are not those of F m -3 m",
        ),
        ({"symmetry": "_symmetry_space_group_name_H-M 'G 1 2 3'"}, "'G 1 2 3' is not known"),
        ({"symmetry": "loop_\n_symmetry_equiv_pos_as_xyz\nx,y\n"}, "'x,y' is not understood"),
        ({"symmetry": "loop_\n_symmetry_equiv_pos_as_xyz\nx,x,z\n"}, "does not keep volumes"),
        ({"cell": "5.64 5.9 5.64 90 90 90", "symmetry": "_space_group_IT_number 225"}, "the cell"),
        ({"cell": "5.64 ? 5.64 90 90 90"}, "line 4: _cell_length_b is '.', not a number"),
        ({"cell": "5.64 5.64 -1 90 90 90"}, "not above zero"),
        ({"cell": "5.64 5.64 5.64 30 30 90"}, "no cell has the angles 30, 30, 90"),
        ({"atoms": SALT.replace("0.5 1", "x 1")}, "Cl1 has the coordinate 'x'"),
        ({"atoms": SALT.replace("0.5 1", "0.5 many")}, "Cl1 has the occupancy 'many'"),
        ({"atoms": SALT.replace("0.5 1", "? 1")}, "Cl1 has no coordinates"),
        ({"atoms": SALT.replace("0.5 1", "0.5 -1")}, "Cl1 has the occupancy -1"),
        ({"atoms": SALT.replace("0.5 1", "0.5 0.9"), "more": ""}, "Cl1 has the occupancy 0.9"),
        ({"atoms": SALT.replace("Cl 0.5", "Qq 0.5")}, "'Qq' .Cl1. is not an element"),
        ({"atoms": "Na1 Na 0 0 0 1\nCl1 Cl 0.5"}, "line 12: Wrong number of values"),
        ({"more": "_x 'open"}, "line 2: unterminated"),
        ({"columns": COLUMNS.replace("fract_z", "fract_w")}, "lacks"),
    ],
)
def test_what_contradicts_itself_is_refused(change: dict[str, str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(cif(**change))


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"more": "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 2"}, "holds 4 formula"),
        ({"symmetry": ""}, "P1 was assumed"),
        ({"atoms": SALT + "K1 K 0.25 0.25 0.25 0\n"}, "K1 has the occupancy 0: left out"),
        ({"atoms": SALT.replace("0 1", "0 0.985(20)")}, "occupancies taken as 1: Na1 0.985"),
    ],
)
def test_what_is_odd_is_remarked(change: dict[str, str], remark: str) -> None:
    assert any(remark in one for one in read(cif(**change))[1])


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("'Na Cl'", {"Na": 1, "Cl": 1}),
        ("Mg1O2H2", {"Mg": 1, "O": 2, "H": 2}),
        ("'C6 D5 H1'", {"C": 6, "H": 6}),
        ("'Ca O0.5'", {"Ca": 1, "O": 0.5}),
        ("'Na 1+'", {"Na": 1}),
        ("?", None),
        ("'foo bar'", None),
    ],
)
def test_formulas(text: str, counts: dict[str, float] | None) -> None:
    assert parse_formula(text) == counts
