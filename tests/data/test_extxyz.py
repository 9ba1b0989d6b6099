"""Extended XYZ: frames as other programs write them; what is no crystal is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice

from jaxmat.data.extxyz import parse_frame, split_frames
from jaxmat.errors import UserError

LATTICE = 'Lattice="4 0 0 0 5 0 1 0 6"'
FRAME = f'2\n{LATTICE} Properties=species:S:1:pos:R:3 pbc="T T T"\nNa 0 0 0\nCl 2.5 2.5 3\n'

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
    (frame,) = split_frames("\n".join([str(len(atoms)), comment, *lines]))
    structure = parse_frame(frame)
    np.testing.assert_array_equal(structure.lattice.matrix.ravel(), cell)
    assert [site.specie.symbol for site in structure] == [symbol for symbol, *_ in atoms]
    read = structure.lattice.get_cartesian_coords(structure.frac_coords)
    np.testing.assert_allclose(read, [xyz for _, *xyz in atoms], atol=1e-6)


def test_columns_are_found_by_name():
    comment = f"energy=-1.5 {LATTICE} name='a b' Properties=id:I:1:pos:R:3:species:S:1:forces:R:3"
    frame = f"1\n{comment}\n7 1 2 3 Fe 0 0 0\n"
    structure = parse_frame(split_frames(frame)[0])
    assert structure.formula == "Fe1"
    np.testing.assert_allclose(structure[0].coords, [1, 2, 3])
    assert structure.lattice == Lattice([[4, 0, 0], [0, 5, 0], [1, 0, 6]])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_frames_are_split_and_a_broken_one_spoils_no_other(end):
    broken = FRAME.replace("2.5 2.5 3", "2.5 2.5")
    text = (FRAME + "\n" + broken + FRAME + "\n\n").replace("\n", end)
    first, second, third = split_frames(text)
    assert parse_frame(first) == parse_frame(third)
    with pytest.raises(UserError, match="atom 1: 3 columns, expected 4"):
        parse_frame(second)


def test_after_a_line_that_is_no_count_nothing_is_guessed():
    whole, rest = split_frames(FRAME + "Na 0 0 0\n" + FRAME)
    assert parse_frame(whole).formula == "Na1 Cl1"
    with pytest.raises(UserError, match="expected a number of atoms, found 'Na 0 0 0'"):
        parse_frame(rest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a number of atoms, found ''"),
        ("9" * 5000, "expected a number of atoms"),
        ("3" + FRAME[1:], "ends after 2 of 3 atoms"),
        ("2", "ends after 0 of 2 atoms"),
        (FRAME.replace("Lattice", "Cell"), "no Lattice=.*only crystals"),
        (FRAME.replace("T T T", "T T F"), 'pbc="T T F": crystals are periodic'),
        (FRAME.replace("T T T", "T"), "crystals are periodic"),
        (FRAME.replace("1 0 6", "1 0"), "is not nine numbers"),
        (FRAME.replace("1 0 6", "1 0 c"), "is not nine numbers"),
        (FRAME.replace("species", "type"), "lacks species:S:1"),
        (FRAME.replace("pos:R:3", "pos:R:2"), "lacks pos:R:3"),
        (FRAME.replace("Na", "Qq"), "atom 0: .*Qq"),
        (FRAME.replace("2.5 2.5 3", "2.5 2.5 x"), "atom 1: could not convert"),
    ],
)
def test_frames_that_cannot_be_used_say_why(text, reason):
    with pytest.raises(UserError, match=reason):
        parse_frame(split_frames(text)[0])
