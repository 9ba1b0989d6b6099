"""Reasons why a structure cannot be used; pymatgen accepts more than a network can."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Structure
from pymatgen.optimization.neighbors import find_points_in_spheres

MAX_ATOMIC_NUMBER = 100
MIN_DISTANCE = 0.5  # Å, between two sites or a site and its image
# Å^3. Diamond has 5.7 a site; below 1 there are over 2,000 neighbours within 8 Å.
MIN_VOLUME_PER_SITE = 1.0
MAX_VOLUME_PER_SITE = 1e6
# The neighbour search visits all cells between a site and its neighbours: bound their number.
MIN_PLANE_SPACING = 0.1  # Å
MAX_CELLS_AWAY = 100.0


def find_problem(structure: Structure) -> str | None:
    """Returns why a structure cannot be used, or None if it can.

    Oxidation states are ignored. Deuterium and tritium pass as hydrogen, as pymatgen reads them
    (D and T have the atomic number 1). A lone atom in a large box passes.

    Args:
        structure: any pymatgen structure. Sites are numbered from 0 in the answer.
    """
    if len(structure) == 0:
        return "it has no sites"
    return _find_bad_site(structure) or _find_bad_cell(structure) or _find_overlap(structure)


def _find_bad_site(structure: Structure) -> str | None:
    for number, site in enumerate(structure):
        if not site.is_ordered:
            return (
                f"site {number} is partially occupied ({site.species_string}): make an ordered "
                "structure of it first (pymatgen: OrderDisorderedStructureTransformation)"
            )
        if not 1 <= site.specie.Z <= MAX_ATOMIC_NUMBER:
            return (
                f"site {number} holds {site.specie.symbol}, which is not among the elements "
                f"1 to {MAX_ATOMIC_NUMBER}"
            )
    return None


def _find_bad_cell(structure: Structure) -> str | None:
    matrix, fractional = structure.lattice.matrix, structure.frac_coords
    if not np.isfinite(matrix).all():
        return "the lattice has values that are not finite"
    bad_sites = np.flatnonzero(~np.isfinite(fractional).all(axis=1))
    if bad_sites.size:
        return f"site {bad_sites[0]} has coordinates that are not finite"
    far_sites = np.flatnonzero((np.abs(fractional) > MAX_CELLS_AWAY).any(axis=1))
    if far_sites.size:
        return (
            f"site {far_sites[0]} lies more than {MAX_CELLS_AWAY:g} cells from the origin: are "
            "these fractional coordinates?"
        )

    with np.errstate(over="ignore", invalid="ignore"):  # an overflow fails the comparison below
        faces = np.cross(np.roll(matrix, -1, axis=0), np.roll(matrix, -2, axis=0))
        volume = abs(float(matrix[0] @ faces[0]))
    per_site = volume / len(structure)
    if not MIN_VOLUME_PER_SITE <= per_site <= MAX_VOLUME_PER_SITE:
        return (
            f"the cell has {per_site:.3g} Å^3 a site, outside {MIN_VOLUME_PER_SITE:g} to "
            f"{MAX_VOLUME_PER_SITE:g}: is the lattice in Å?"
        )
    spacing = volume / float(np.linalg.norm(faces, axis=1).max())
    if spacing < MIN_PLANE_SPACING:
        return (
            f"opposite faces of the cell lie {spacing:.2g} Å apart, it is too skewed: reduce it "
            "(pymatgen: Structure.get_reduced_structure)"
        )
    return None


def _find_overlap(structure: Structure) -> str | None:
    matrix = np.ascontiguousarray(structure.lattice.matrix)
    periodic = np.array(structure.pbc, dtype=np.int64)
    fractional = structure.frac_coords
    wrapped = fractional - np.where(periodic == 1, np.floor(fractional), 0.0)
    positions = np.ascontiguousarray(wrapped @ matrix)
    first, second, image, distance = find_points_in_spheres(
        positions, positions, r=MIN_DISTANCE, pbc=periodic, lattice=matrix
    )
    distance = np.where((first == second) & (image == 0).all(axis=1), np.inf, distance)
    if distance.size == 0 or distance.min() >= MIN_DISTANCE:
        return None
    closest = int(distance.argmin())
    one, other = first[closest], second[closest]
    pair = f"site {one} and its own image" if one == other else f"sites {one} and {other}"
    return f"{pair} lie {distance[closest]:.3f} Å apart, closer than {MIN_DISTANCE:g} Å"
