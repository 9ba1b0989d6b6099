"""Crystals in memory: what cannot be used is told, and nothing is lost on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.objects import as_structure
from jaxmat.crystals.occupancy import site_species
from jaxmat.data.reading import Reading, read
from jaxmat.errors import UserError

from ..cifs import cell_lines

ase = pytest.importorskip("ase")
pytest.importorskip("ase.io")

CIF = f"""data_x
{cell_lines()}
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
FULL = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1\n"
SHARED = "Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1\n"
PARTIAL = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 0.75\n"
NEARLY = "Na1 Na 0 0 0 0.99\nCl1 Cl 0.5 0.5 0.5 1.01\n"


def read_one(crystal: object) -> Reading:
    (entry,) = read([crystal])
    return entry


def from_cif(atoms: str) -> ase.Atoms:
    return ase.io.read(io.StringIO(CIF + atoms), format="cif")


def salt(**changes: object) -> ase.Atoms:
    fields = {"positions": [[0, 0, 0], [2, 2, 2]], "cell": [4, 4, 4], "pbc": True} | changes
    return ase.Atoms(**({"symbols": "NaCl"} | fields if "numbers" not in fields else fields))


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (SHARED, "disorder: a site is shared (Na on site 0 0.5, K on site 0 0.5)"),
        (PARTIAL, "disorder: Cl on site 1 has the occupancy 0.75"),
    ],
)
def test_disorder_that_ase_has_read_is_refused(atoms: str, reason: str) -> None:
    crystal = from_cif(atoms)
    assert reason in read_one(crystal).reason
    assert reason in read_one(crystal.repeat((1, 1, 2))).reason
    del crystal.arrays["spacegroup_kinds"]
    assert "disorder: a site is shared or not full" in read_one(crystal).reason


def test_sites_that_are_full_or_have_been_filled_are_taken() -> None:
    for atoms in (FULL, NEARLY):
        entry = read_one(from_cif(atoms))
        assert entry.structure.formula == "Na1 Cl1"
        assert bool(entry.remarks) == (atoms == NEARLY)
    crystal = from_cif(SHARED)
    crystal.symbols[0] = "Li"  # another atom was put there
    assert read_one(crystal).structure.formula == "Li1 Cl1"
    del crystal.arrays["spacegroup_kinds"]
    assert read_one(crystal).structure.formula == "Li1 Cl1"
    crystal = from_cif(SHARED)
    del crystal[0]  # what is left is ordered
    assert read_one(crystal).structure.formula == "Cl1"


@pytest.mark.parametrize("name", ["occupancy", "occupancies"])
def test_the_occupancies_of_other_formats_are_held_to_the_same(name: str) -> None:
    crystal = salt()
    crystal.set_array(name, np.ones(2))
    assert read_one(crystal).structure.formula == "Na1 Cl1"
    crystal.set_array(name, np.array([1, 0.5]))
    assert "disorder: Cl on site 1 has the occupancy 0.5" in read_one(crystal).reason


@pytest.mark.parametrize(
    ("occupancy", "reason"),
    [
        ({0: {"O": 1, "H": 1}, 1: {"Cl": 1}}, "disorder: site 0 holds more than one atom"),
        ({"0": {"Na": float("nan")}}, "disorder: the occupancy of Na on site 0 is nan"),
        ({"0": {"Na": 0.5, "Wat": 0.5}}, "element: site 0 holds 'Wat'"),
        ({"0": {"Na": 0}}, "structure: site 0 has no species"),
    ],
)
def test_odd_occupancies_are_refused(occupancy: object, reason: str) -> None:
    crystal = salt(symbols="OCl") if "more than one" in reason else salt()
    crystal.info["occupancy"] = occupancy
    crystal.set_array("spacegroup_kinds", np.array([0, 1]))
    assert reason in read_one(crystal).reason


@pytest.mark.parametrize("other", [None, 0.5, [1, 1], "full", {"Na": 0.5}, {"0": {"Na": "1"}}])
def test_what_is_no_table_of_sites_tells_nothing(other: object) -> None:
    assert site_species(["Na"], other, [0]) == [{"Na": 1.0}]


def cell_with(value: float) -> np.ndarray:
    cell = 4 * np.eye(3)
    cell[0, 1] = value
    return cell


@pytest.mark.parametrize(
    ("crystal", "reason"),
    [
        (salt(symbols="XCl"), "element: site 0 has the atomic number 0"),
        (salt(numbers=[11, 119]), "element: site 1 has the atomic number 119"),
        (salt(numbers=[11, -3]), "element: site 1 has the atomic number -3"),
        (salt(cell=cell_with(np.nan)), "lattice: the lattice has values that are not finite"),
        (salt(cell=cell_with(np.inf)), "lattice: the lattice has values that are not finite"),
        (salt(positions=[[0, 0, np.nan], [2, 2, 2]]), "coordinates: site 0"),
        (Structure(Lattice.cubic(4), ["Na", "X"], [[0, 0, 0], [0.5] * 3]), "element: 'X' is not"),
        (Structure(Lattice(cell_with(np.nan)), ["Na"], [[0, 0, 0]]), "lattice: the lattice has"),
        (Structure(Lattice.cubic(4), ["Na", {}], [[0, 0, 0], [0.5] * 3]), "site 1 has no species"),
    ],
)
def test_one_crystal_that_cannot_be_used_harms_no_other(crystal: object, reason: str) -> None:
    first, bad, last = read([salt(), crystal, salt()])
    assert first.content is not None and last.content is not None
    assert reason in bad.reason


def test_what_callers_catch_is_what_is_raised() -> None:
    for crystal in (salt(symbols="XCl"), salt(cell=cell_with(np.nan))):
        with pytest.raises(UserError):
            as_structure(crystal)
    assert as_structure(salt()).formula == "Na1 Cl1"
