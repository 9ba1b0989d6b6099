"""Reasons why a crystal cannot be used; pymatgen accepts more than a network can.

They also bound what the neighbour search takes: its time grows with the images of sites that lie in
reach, its memory with the box around the sites, whatever the crystal is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymatgen.core import Element

from jaxmat.crystals.content import Content
from jaxmat.crystals.neighbors import MAX_CUTOFF, Cell, Pairs

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


def find_problem(crystal: Content) -> str | None:
    """Returns why a crystal cannot be used, or None if it can.

    The answer begins with the kind of problem and a colon: size, element, lattice, coordinates,
    density or overlap. A lone atom in a large box passes.

    Args:
        crystal: any numbers of the right shapes. Sites are numbered from 0 in the answer.
    """
    sites = len(crystal.atomic_number)
    if sites == 0:
        return "size: it has no sites"
    if sites > MAX_SITES:
        return too_many_sites(sites)
    if problem := _find_bad_number(crystal):
        return problem
    with np.errstate(over="ignore", invalid="ignore"):  # the volume will tell
        cell = Cell.of(crystal)
    return _find_bad_cell(cell) or _find_overlap(cell)


def too_many_sites(sites: int) -> str:
    """Returns what is said of a structure with more than `MAX_SITES`."""
    return f"size: it has {sites} sites; a cell of at most {MAX_SITES} can be used"


def _find_bad_number(crystal: Content) -> str | None:
    numbers, fractional = crystal.atomic_number, crystal.fractional
    strange = np.flatnonzero((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER))
    if strange.size:
        symbol = Element.from_Z(int(numbers[strange[0]])).symbol
        return (
            f"element: site {strange[0]} holds {symbol}, which is not among the elements 1 to "
            f"{MAX_ATOMIC_NUMBER}"
        )
    if not np.isfinite(crystal.lattice).all():
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
    return None


def _find_bad_cell(cell: Cell) -> str | None:
    a, b, c = cell.matrix.tolist()
    faces = np.array([_product(b, c), _product(c, a), _product(a, b)])
    sites = len(cell.fractional)
    # An overflow fails the comparisons below.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        volume = abs(float(cell.matrix[0] @ faces[0]))
        spacing = volume / np.sqrt((faces * faces).sum(axis=1))
        images = np.where(cell.periodic, 2 * np.ceil(MAX_CUTOFF / spacing) + 1, 1)
        visits = float(images.prod()) * sites
    per_site = volume / sites
    if not MIN_VOLUME_PER_SITE <= per_site <= MAX_VOLUME_PER_SITE:
        return (
            f"density: the cell has {per_site:.3g} Å^3 a site, outside {MIN_VOLUME_PER_SITE:g} to "
            f"{MAX_VOLUME_PER_SITE:g}: is the lattice in Å?"
        )
    if visits > _MAX_VISITS:
        return (
            f"lattice: opposite faces of the cell lie {spacing.min():.2g} Å apart, it is too "
            "skewed: reduce it (pymatgen: Structure.get_reduced_structure)"
        )
    box = np.ptp(cell.positions, axis=0)
    if np.prod(box + MAX_CUTOFF) > _MAX_BOX:
        lengths = " x ".join(f"{length:.3g}" for length in box)
        return (
            f"size: its sites lie in a box of {lengths} Å, more than {_MAX_BOX:g} Å^3 with a margin"
        )
    return None


def _product(u: Sequence[float], v: Sequence[float]) -> list[float]:
    """Returns the cross product; of three numbers each numpy's takes twenty times as long."""
    return [
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    ]


def _find_overlap(cell: Cell) -> str | None:
    # A wider search than needed where the box would be cut into too many cubes.
    box = np.ptp(cell.positions, axis=0) + 2 * MIN_DISTANCE
    radius = max(MIN_DISTANCE, float(np.prod(box) / _MAX_CUBES) ** (1 / 3))
    sites = len(cell.fractional)
    for first in range(0, sites, _BLOCK):
        pairs = cell.find_pairs(np.arange(first, min(first + _BLOCK, sites)), radius)
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
