"""A structure passes or is refused for the right reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.checks import MAX_SITES, find_problem
from jaxmat.crystals.content import Content

CUBE = Lattice.cubic(4.0)
SLAB = Lattice(np.eye(3) * 4, pbc=(True, True, False))


def one_atom(species: object = "Si", lattice: object = CUBE, at: object = (0, 0, 0)) -> Structure:
    return Structure(lattice, [species], [at])


@pytest.mark.parametrize(
    "structure",
    [
        Structure(CUBE, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        one_atom(lattice=Lattice.cubic(40.0)),
        one_atom(lattice=[[0, 4, 0], [4, 0, 0], [0, 0, 4]]),
        one_atom(lattice=[[2, 0, 0], [10, 2, 0], [0, 0, 2]]),
        one_atom("Fm"),
        one_atom("Fe3+"),
        one_atom("D"),
        one_atom("T"),
        one_atom(at=(-1e-17, 1 - 1e-17, -3)),
        one_atom(at=(0, 99.5, -99.5)),
        Structure(Lattice.cubic(40), ["H", "H"], [[-99.5, 99, 0], [99, -99, 0.1]]),
        Structure(SLAB, ["H", "H"], [[0, 0, 0.01], [0, 0, 0.99]]),
        Structure(Lattice.cubic(120), ["H", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ],
    ids=(
        "ordinary lone-atom left-handed skewed Z100 charged D T outside-cell far-away far-apart "
        "slab wide"
    ).split(),
)
def test_usable_structures_pass(structure: Structure) -> None:
    assert find_problem(Content.of(structure)) is None


def test_isotopes_are_hydrogen() -> None:
    assert one_atom("D").atomic_numbers == one_atom("T").atomic_numbers == (1,)


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(CUBE, [], []), "size: it has no sites"),
        (Structure(CUBE, ["H"] * (MAX_SITES + 1), [[0, 0, 0]] * (MAX_SITES + 1)), "10001 sites"),
        (one_atom("Md"), "element: site 0 holds Md"),
        (one_atom(at=(np.nan, 0, 0)), "coordinates: site 0 has coordinates that are not finite"),
        (one_atom(at=(0, np.inf, 0)), "site 0 has coordinates that are not finite"),
        (
            one_atom(lattice=Lattice.cubic(np.nan)),
            "lattice: the lattice has values that are not finite",
        ),
        (one_atom(lattice=np.zeros((3, 3))), "density: the cell has 0 Å^3 a site"),
        (one_atom(lattice=[[1, 0, 0], [0, 1, 0], [1, 1, 0]]), "0 Å^3 a site"),
        (one_atom(lattice=Lattice.cubic(0.5)), "0.125 Å^3 a site"),
        (one_atom(lattice=Lattice.cubic(1e4)), "1e+12 Å^3 a site"),
        (one_atom(lattice=Lattice.cubic(1e200)), "inf Å^3 a site"),
        (one_atom(at=(1e9, 0, 0)), "more than 100 cells"),
        (one_atom(lattice=[[1, 0, 0], [1e5, 2, 0], [0, 0, 2]]), "too skewed"),
        (one_atom(lattice=[[0, 1, 0], [0, 1e200, 1], [1, 0, 0]]), "too skewed"),
        (
            Structure(Lattice.cubic(600), ["H", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            "1.08e+08 Å^3 a site",
        ),
        (
            Structure(
                Lattice.cubic(300), ["H"] * 30, np.linspace(0, 0.9, 30)[:, None] * [[1, 1, 1]]
            ),
            "size: its sites lie in a box of 270 x 270 x 270 Å",
        ),
        (one_atom(lattice=Lattice.orthorhombic(0.4, 4, 40)), "site 0 and its own image lie 0.400"),
        (Structure(CUBE, ["H", "H"], [[0, 0, 0], [1, 0, 0]]), "overlap: sites 0 and 1 lie 0.000"),
    ],
)
def test_unusable_structures_are_named(structure: Structure, reason: str) -> None:
    problem = find_problem(Content.of(structure))
    assert problem is not None
    assert reason in problem


@settings(max_examples=50, deadline=None)
@given(
    distance=st.floats(0.01, 1.0).filter(lambda d: abs(d - 0.5) > 1e-6),
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    origin=st.tuples(*[st.floats(-2, 2)] * 3),
    cell=st.sampled_from([(0, 0, 0), (1, 0, -1), (0, 3, 0)]),
)
def test_overlap_is_found_wherever_the_pair_lies(distance, direction, origin, cell) -> None:
    lattice = Lattice.from_parameters(4, 5, 6, 75, 100, 110)
    step = lattice.get_fractional_coords(np.array(direction) / np.linalg.norm(direction) * distance)
    structure = Structure(lattice, ["H", "H"], [origin, np.array(origin) + step + cell])
    problem = find_problem(Content.of(structure))
    assert (problem is not None) == (distance < 0.5)
    assert problem is None or problem.startswith("overlap: sites ")


def test_many_sites_at_one_point_take_little_memory() -> None:
    """All pairs of them would take gigabytes."""
    structure = Structure(Lattice.cubic(60), ["H"] * MAX_SITES, np.zeros((MAX_SITES, 3)))
    problem = find_problem(Content.of(structure))
    assert problem is not None and problem.startswith("overlap: sites 0 and")
