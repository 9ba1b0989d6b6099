"""Extended XYZ: frames as other programs write them; what is not a crystal is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.data.formats import extxyz
from jaxmat.data.formats.extxyz import read_fields, read_frames
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.tables import numeric_column, read_rows
from jaxmat.errors import UserError

LATTICE = 'Lattice="4 0 0 0 5 0 1 0 6"'
FRAME = f'2\n{LATTICE} Properties=species:S:1:pos:R:3 pbc="T T T"\nNa 0 0 0\nCl 2.5 2.5 3\n'


def frames(text: str) -> list[extxyz.Frame]:
    return list(read_frames(iter(text.splitlines(keepends=True))))


def structure_of(frame: extxyz.Frame) -> Structure:
    return one_atom_a_site(extxyz.parse_frame(frame))[0].structure()


number = st.floats(-50, 50).map(lambda x: round(x, 6))


@given(
    st.lists(st.tuples(st.sampled_from(["H", "Fe", "Lr"]), number, number, number), min_size=1),
    st.lists(number, min_size=9, max_size=9).filter(
        lambda cell: abs(np.linalg.det(np.reshape(cell, (3, 3)))) > 1
    ),
)
def test_what_is_written_is_read(atoms, cell):
    lines = [f"{symbol} {x!r} {y!r} {z!r}" for symbol, x, y, z in atoms]
    comment = f'Lattice="{" ".join(map(repr, cell))}"'
    (frame,) = frames("\n".join([str(len(atoms)), comment, *lines]))
    structure = structure_of(frame)
    np.testing.assert_array_equal(structure.lattice.matrix.ravel(), cell)
    assert [site.specie.symbol for site in structure] == [symbol for symbol, *_ in atoms]
    read = structure.lattice.get_cartesian_coords(structure.frac_coords)
    np.testing.assert_allclose(read, [xyz for _, *xyz in atoms], atol=1e-6)


def test_columns_are_found_by_name():
    comment = f"energy=-1.5 {LATTICE} name='a b' Properties=id:I:1:pos:R:3:species:S:1:forces:R:3"
    frame = f"1\n{comment}\n7 1 2 3 Fe 0 0 0\n"
    structure = structure_of(frames(frame)[0])
    assert structure.formula == "Fe1"
    np.testing.assert_allclose(structure[0].coords, [1, 2, 3])
    assert structure.lattice == Lattice([[4, 0, 0], [0, 5, 0], [1, 0, 6]])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_frames_are_split_and_a_broken_one_spoils_no_other(end):
    broken = FRAME.replace("2.5 2.5 3", "2.5 2.5")
    text = (FRAME + "\n" + broken + FRAME + "\n\n").replace("\n", end)
    first, second, third = frames(text)
    assert structure_of(first) == structure_of(third)
    with pytest.raises(UserError, match="atom 1: 3 columns, expected 4"):
        structure_of(second)


def test_after_a_line_that_is_no_count_nothing_is_guessed():
    whole, rest = frames(FRAME + "Na 0 0 0\n" + FRAME)
    assert structure_of(whole).formula == "Na1 Cl1"
    with pytest.raises(UserError, match="expected a number of atoms, found 'Na 0 0 0'"):
        structure_of(rest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9" * 5000, "expected a number of atoms"),
        ("3" + FRAME[1:], "ends after 2 of 3 atoms"),
        ("2", "ends after 0 of 2 atoms"),
        (FRAME.replace("Lattice", "Cell"), "no Lattice=.*only crystals"),
        (FRAME.replace("T T T", "F F F"), "periodic in no direction"),
        (FRAME.replace("T T T", "T"), "pbc='T' is not three of T and F"),
        (FRAME.replace('"T T T"', '"T T T'), 'a " without its " .column'),
        (FRAME.replace('"T T T"', "[T, T"), "without its ]"),
        (FRAME.replace("0 5 0", "0 0 0"), "span no volume"),
        (FRAME.replace("1 0 6", "1 0"), "is not nine numbers"),
        (FRAME.replace("1 0 6", "1 0 c"), "is not nine numbers"),
        (FRAME.replace("species", "type"), "lacks species:S:1"),
        (FRAME.replace("pos:R:3", "pos:R:2"), "lacks pos:R:3"),
        (FRAME.replace("Na", "Qq"), "atom 0: 'Qq' is not an element"),
        (FRAME.replace("2.5 2.5 3", "2.5 2.5 x"), "atom 1: .x. is not a number"),
        (FRAME.replace("2.5 2.5 3", "2.5 2.5 1_0"), "atom 1: .1_0. is not a number"),
        (FRAME.replace("1 0 6", "1 0 ６"), "is not nine numbers"),
    ],
)
def test_frames_that_cannot_be_used_say_why(text, reason):
    with pytest.raises(UserError, match=reason):
        structure_of(frames(text)[0])


def test_the_comment_line_is_read_as_other_programs_write_it():
    line = "Lattice=[[1, 2, 3], [4, 5, 6]] pbc='T T F' a = \"b c\" flag x={1 2} 'k k'=5 e=-1e3"
    fields = read_fields(line)
    assert fields["Lattice"] == "[1, 2, 3], [4, 5, 6]" and fields["pbc"] == "T T F"
    assert (fields["a"], fields["flag"], fields["x"], fields["k k"]) == ("b c", "T", "1 2", "5")
    assert fields["e"] == "-1e3"


@pytest.mark.parametrize("text", ['a="', "a='", "a=[", "[{", '"', "= ", "a" * 9, "\\"])
def test_open_quotes_and_brackets_take_no_longer_than_closed_ones(text):
    """Which took a time that grew with the square of the length."""
    try:
        read_fields((text * 2**17)[: 2**18])
    except UserError as problem:
        assert "without its" in str(problem)
    with pytest.raises(UserError, match="comment line has 300000 characters"):
        read_fields("a" * 300_000)


@pytest.mark.parametrize("kinds", [True, False])
@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        ('"0": {"Na": 0.5, "K": 0.5}, "2": {"Cl": 1}', "Na on site 0 0.5, K on site 0 0.5"),
        ('"0": {"Na": 1}, "2": {"Cl": 0.75}', "Cl on site 1 has the occupancy 0.75"),
        ('"0": {"Na": 1}, "2": {"Cl": 1}', ""),
        ('"0": {"Li": 0.5, "K": 0.5}, "1": {"O": 0.5}', ""),  # no atom is on such sites
    ],
)
def test_disorder_that_ase_writes_is_refused(atoms, reason, kinds):
    table = '"_JSON {' + atoms.replace('"', r"\"") + '}"'
    text = FRAME.replace("pbc=", f"occupancy={table} pbc=")
    if kinds:
        text = text.replace("pos:R:3", "pos:R:3:spacegroup_kinds:I:1")
        text = text.replace("Na 0 0 0", "Na 0 0 0 0").replace("2.5 3", "2.5 3 2")
    (frame,) = frames(text)
    if not reason:
        assert structure_of(frame).formula == "Na1 Cl1"
        return
    with pytest.raises(UserError, match=f"disorder: .*{reason if kinds else 'shared or not full'}"):
        structure_of(frame)


@pytest.mark.parametrize("column", ["occupancies:R:1", "occupancy:R:1", "occupancy:I:1"])
def test_occupancies_in_a_column_are_those_of_the_sites(column):
    text = FRAME.replace("pos:R:3", f"pos:R:3:{column}")
    full = text.replace("Na 0 0 0", "Na 0 0 0 1").replace("2.5 3", "2.5 3 1")
    assert structure_of(frames(full)[0]).formula == "Na1 Cl1"
    with pytest.raises(UserError, match="disorder: Cl on site 1 has the occupancy 0.5"):
        structure_of(frames(full.replace("2.5 3 1", "2.5 3 0.5"))[0])


def test_an_occupancy_that_is_something_else_is_left_alone():
    (frame,) = frames(FRAME.replace("pbc=", "occupancy=0.5 pbc="))
    assert structure_of(frame).formula == "Na1 Cl1"
    (frame,) = frames(FRAME.replace("pbc=", 'occupancy="_JSON {" pbc='))
    with pytest.raises(UserError, match="occupancy='_JSON {' is not JSON"):
        structure_of(frame)


def test_numbers_as_fortran_writes_them_are_numbers(tmp_path):
    text = FRAME.replace("4 0 0", "4.0D0 0d0 0.0D+00").replace("2.5 2.5", "2.5 25D-1")
    (frame,) = frames(text)
    structure = structure_of(frame)
    np.testing.assert_allclose(structure.lattice.matrix, [[4, 0, 0], [0, 5, 0], [1, 0, 6]])
    np.testing.assert_allclose(structure[1].coords, [2.5, 2.5, 3])
    path = tmp_path / "a.xyz"
    path.write_text(text.replace("pbc=", "gap=1.5D-01 name=1D pbc="))
    rows = read_rows(path)
    assert numeric_column(rows, "gap").tolist() == [0.15]
    assert rows.columns["name"].tolist() == ["1D"]
