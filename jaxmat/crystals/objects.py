"""Crystals in memory: structures of pymatgen, mutable or not, and atoms of ASE."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pymatgen.core import IStructure, Lattice, Structure

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
    matrix, (a, b, c) = np.array(atoms.cell), map(bool, atoms.pbc)
    if not (a or b or c):
        raise UserError(
            "lattice: the atoms are periodic in no direction: set atoms.pbc = True if they have a "
            "cell"
        )
    if np.linalg.matrix_rank(matrix) < 3:
        raise UserError("lattice: the atoms have no cell with a volume: set atoms.cell")
    numbers, positions = atoms.get_atomic_numbers(), atoms.get_positions()
    return Structure(Lattice(matrix, pbc=(a, b, c)), numbers, positions, coords_are_cartesian=True)
