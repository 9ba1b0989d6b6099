"""Crystals in memory: structures of pymatgen, mutable or not, and atoms of ASE."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pymatgen.core import Element, IStructure, Lattice, Structure

from jaxmat.crystals.checks import MAX_ATOMIC_NUMBER
from jaxmat.crystals.occupancy import (
    OCCUPANCY_ARRAYS,
    OCCUPANCY_TOLERANCE,
    fill_sites,
    site_species,
)
from jaxmat.errors import UserError


def is_crystal(value: object) -> bool:
    """Whether a value is one crystal (a structure is a sequence of sites, too)."""
    return isinstance(value, IStructure) or _is_ase(value)


def as_structure(crystal: object) -> Structure:
    """Returns a crystal as a structure that pymatgen can change; what it has already is not copied.

    Args:
        crystal: pymatgen's Structure or IStructure, or ASE's Atoms.

    Raises:
        UserError: it is something else, or not periodic.
    """
    if isinstance(crystal, Structure):
        return crystal
    if isinstance(crystal, IStructure):
        return Structure.from_sites(list(crystal))
    if _is_ase(crystal):
        return _from_ase(crystal)
    raise UserError(
        f"{type(crystal).__module__}.{type(crystal).__qualname__} is not a crystal: expected a "
        "Structure or IStructure of pymatgen, or Atoms of ASE"
    )


def _is_ase(value: object) -> bool:
    # Who has such an object has imported ASE, which this package does without.
    ase = sys.modules.get("ase")
    return isinstance(value, getattr(ase, "Atoms", ()))


def _from_ase(atoms: Any) -> Structure:
    matrix, (a, b, c) = np.array(atoms.cell, np.float64), map(bool, atoms.pbc)
    if not (a or b or c):
        raise UserError(
            "lattice: the atoms are periodic in no direction: set atoms.pbc = True if they have a "
            "cell"
        )
    if not np.isfinite(matrix).all():
        raise UserError("lattice: the lattice has values that are not finite")
    if np.linalg.matrix_rank(matrix) < 3:
        raise UserError("lattice: the atoms have no cell with a volume: set atoms.cell")
    lattice = Lattice(matrix, pbc=(a, b, c))
    return Structure(lattice, _species(atoms), atoms.get_positions(), coords_are_cartesian=True)


def _species(atoms: Any) -> list[Any]:
    """Returns the element of each site, or how much of which, as pymatgen takes them.

    Raises:
        UserError: something that is no element, or more than there is room for.
    """
    numbers, arrays = atoms.get_atomic_numbers(), atoms.arrays
    strange = np.flatnonzero((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER))
    if strange.size:
        raise UserError(
            f"element: site {strange[0]} has the atomic number {numbers[strange[0]]}, which is not "
            f"among the elements 1 to {MAX_ATOMIC_NUMBER}"
        )
    symbols = [Element.from_Z(int(number)).symbol for number in numbers]
    species = site_species(symbols, atoms.info.get("occupancy"), arrays.get("spacegroup_kinds"))
    for name in OCCUPANCY_ARRAYS:
        if np.shape(arrays.get(name)) == np.shape(numbers):
            species = fill_sites(species, arrays[name])
    return [
        symbol if site == {symbol: 1.0} else _checked(number, site)
        for number, (symbol, site) in enumerate(zip(symbols, species, strict=True))
    ]


def _checked(number: int, site: dict[str, float]) -> dict[str, float]:
    """Returns what is on a site where pymatgen takes it: known elements, at most one atom."""
    for symbol, amount in site.items():
        if not Element.is_valid_symbol(symbol):
            raise UserError(f"element: site {number} holds {symbol!r}, which is not an element")
        if not 0 <= amount < np.inf:
            raise UserError(f"disorder: the occupancy of {symbol} on site {number} is {amount:g}")
    total = sum(site.values())
    if len(site) == 1 and 1 < total <= 1 + OCCUPANCY_TOLERANCE + 1e-9:
        return dict.fromkeys(site, 1.0)
    if total > 1 + 1e-9:
        held = ", ".join(f"{symbol} {amount:g}" for symbol, amount in site.items())
        raise UserError(f"disorder: site {number} holds more than one atom ({held})")
    return site
