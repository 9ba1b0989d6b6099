"""Reasons why a structure cannot be used; pymatgen accepts more than a network can.

They also bound what the neighbour search takes: its time grows with the images of sites that lie in
reach, its memory with the box around the sites, whatever the structure is.
"""

from __future__ import annotations

import numpy as np
from pymatgen.core import DummySpecies, Structure

from jaxmat.crystals.neighbors import MAX_CUTOFF, Pairs, find_pairs, positions_in_cell

MAX_ATOMIC_NUMBER = 100
# Some 1.7 million angles, which the network of the paper takes 50 GB to train on.
MAX_SITES = 10_000
MIN_DISTANCE = 0.5  # Å, between two sites or a site and its image
# Å^3. Diamond has 5.7 a site; below 1 there are over 2,000 neighbours within 8 Å.
MIN_VOLUME_PER_SITE = 1.0
MAX_VOLUME_PER_SITE = 1e6
MAX_CELLS_AWAY = 100.0
# Of images that the widest search visits: a second or so.
_MAX_VISITS = 1e8
# Å^3, of the box around all sites. The search cuts it into cubes as wide as its radius, 1.9 Å at
# least, and keeps 224 bytes for each.
_MAX_BOX = 1e7
_MAX_CUBES = 1e5
# Sites that look for overlaps together.
_BLOCK = 500


def find_problem(structure: Structure) -> str | None:
    """Returns why a structure cannot be used, or None if it can.

    The answer begins with the kind of problem and a colon: size, disorder, element, lattice,
    coordinates, density or overlap. Oxidation states are ignored. Deuterium and tritium are
    hydrogen, as pymatgen reads them. A lone atom in a large box passes.

    Args:
        structure: any pymatgen structure. Sites are numbered from 0 in the answer.
    """
    if len(structure) == 0:
        return "size: it has no sites"
    if len(structure) > MAX_SITES:
        return too_many_sites(len(structure))
    return _find_bad_site(structure) or _find_bad_cell(structure) or _find_overlap(structure)


def too_many_sites(sites: int) -> str:
    """Returns what is said of a structure with more than `MAX_SITES`."""
    return f"size: it has {sites} sites; a cell of at most {MAX_SITES} can be used"


def _find_bad_site(structure: Structure) -> str | None:
    for number, site in enumerate(structure):
        if not site.is_ordered:
            return (
                f"disorder: site {number} is partially occupied ({site.species_string}): make an "
                "ordered structure of it first (pymatgen: OrderDisorderedStructureTransformation)"
            )
        # The atomic number of a dummy is a hash.
        is_dummy = isinstance(site.specie, DummySpecies)
        if is_dummy or not 1 <= site.specie.Z <= MAX_ATOMIC_NUMBER:
            return (
                f"element: site {number} holds {site.specie.symbol}, which is not among the "
                f"elements 1 to {MAX_ATOMIC_NUMBER}"
            )
    return None


def _find_bad_cell(structure: Structure) -> str | None:
    matrix, fractional = structure.lattice.matrix, structure.frac_coords
    if not np.isfinite(matrix).all():
        return "lattice: the lattice has values that are not finite"
    bad_sites = np.flatnonzero(~np.isfinite(fractional).all(axis=1))
    if bad_sites.size:
        return f"coordinates: site {bad_sites[0]} has coordinates that are not finite"
    far_sites = np.flatnonzero((np.abs(fractional) > MAX_CELLS_AWAY).any(axis=1))
    if far_sites.size:
        return (
            f"coordinates: site {far_sites[0]} lies more than {MAX_CELLS_AWAY:g} cells from the "
            "origin: are these fractional coordinates?"
        )

    # An overflow fails the comparisons below.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        faces = np.cross(np.roll(matrix, -1, axis=0), np.roll(matrix, -2, axis=0))
        volume = abs(float(matrix[0] @ faces[0]))
        spacing = volume / np.linalg.norm(faces, axis=1)
        images = np.where(structure.pbc, 2 * np.ceil(MAX_CUTOFF / spacing) + 1, 1)
    per_site = volume / len(structure)
    if not MIN_VOLUME_PER_SITE <= per_site <= MAX_VOLUME_PER_SITE:
        return (
            f"density: the cell has {per_site:.3g} Å^3 a site, outside {MIN_VOLUME_PER_SITE:g} to "
            f"{MAX_VOLUME_PER_SITE:g}: is the lattice in Å?"
        )
    if images.prod() * len(structure) > _MAX_VISITS:
        return (
            f"lattice: opposite faces of the cell lie {spacing.min():.2g} Å apart, it is too "
            "skewed: reduce it (pymatgen: Structure.get_reduced_structure)"
        )
    box = np.ptp(positions_in_cell(structure), axis=0)
    if np.prod(box + MAX_CUTOFF) > _MAX_BOX:
        lengths = " x ".join(f"{length:.3g}" for length in box)
        return (
            f"size: its sites lie in a box of {lengths} Å, more than {_MAX_BOX:g} Å^3 with a margin"
        )
    return None


def _find_overlap(structure: Structure) -> str | None:
    # A wider search than needed where the box would be cut into too many cubes.
    box = np.ptp(positions_in_cell(structure), axis=0) + 2 * MIN_DISTANCE
    radius = max(MIN_DISTANCE, float(np.prod(box) / _MAX_CUBES) ** (1 / 3))
    for first in range(0, len(structure), _BLOCK):
        centers = np.arange(first, min(first + _BLOCK, len(structure)))
        pairs = find_pairs(structure, centers, radius)
        if pairs.distance.size and pairs.distance.min() < MIN_DISTANCE:
            return _tell_overlap(pairs)
    return None


def _tell_overlap(pairs: Pairs) -> str:
    closest = int(pairs.distance.argmin())
    one, other = sorted([int(pairs.center[closest]), int(pairs.other[closest])])
    pair = f"site {one} and its own image" if one == other else f"sites {one} and {other}"
    return (
        f"overlap: {pair} lie {pairs.distance[closest]:.3f} Å apart, closer than {MIN_DISTANCE:g} Å"
    )
