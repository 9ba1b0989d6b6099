"""Which sites are bonded: the two neighbour rules, on pymatgen's compiled search."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pymatgen.core import Structure
from pymatgen.optimization.neighbors import find_points_in_spheres

_PERIODIC = np.ones(3, dtype=np.int64)


class Bonds(NamedTuple):
    """Directed bonds of one crystal, sorted by receiver.

    Attributes:
        sender: site where the bond starts, int64 [bonds].
        receiver: site where it ends, int64 [bonds].
        vector: from sender to receiver, Å, float64 [bonds, 3].
    """

    sender: np.ndarray
    receiver: np.ndarray
    vector: np.ndarray


def complete_shells(structure: Structure, max_neighbors: int, tie_tolerance: float) -> Bonds:
    """Returns each bond i→j with j in the complete neighbour shell of i, or i in that of j.

    The shell of a site reaches as far as its `max_neighbors`-th neighbour plus `tie_tolerance`,
    so that which bonds exist does not depend on rounding or on how the cell is written.

    Args:
        structure: a periodic crystal.
        max_neighbors: neighbours that a shell holds at least.
        tie_tolerance: Å by which a neighbour may lie beyond the last one.
    """
    cartesian = np.ascontiguousarray(structure.cart_coords)
    lattice = np.ascontiguousarray(structure.lattice.matrix)
    # The sphere that holds two and a half shells at the mean density; it grows where that fails.
    per_site = structure.volume / len(cartesian)
    radius = (2.5 * max_neighbors * per_site * 3 / (4 * np.pi)) ** (1 / 3)
    while True:
        center, other, image, distance = _search(cartesian, lattice, radius)
        reach = _nth_distance(center, distance, len(cartesian), max_neighbors) + tie_tolerance
        if reach.max() <= radius:
            break
        radius = min(reach.max(), 1.3 * radius) if np.isfinite(reach).all() else 1.3 * radius
    keep = distance <= np.maximum(reach[center], reach[other])
    center, other, image = center[keep], other[keep], image[keep]
    vector = cartesian[center] - (cartesian[other] + image @ lattice)
    return _sorted_by_receiver(other, center, vector)


def reference_shells(
    structure: Structure, max_neighbors: int, cutoff: float, canonical: bool
) -> Bonds:
    """Returns the bonds of the published ALIGNN graphs, ties broken by the last bit as there.

    The reference rounds the lattice to five decimals for positions but not for image shifts, and
    keeps whatever lies no further than the `max_neighbors`-th neighbour by exact float64
    comparison; distances are therefore computed in its own order of operations
    (jarvis-tools `Atoms.get_all_neighbors`, ALIGNN 2023.06 `nearest_neighbor_edges`).

    Args:
        structure: a periodic crystal.
        max_neighbors: neighbours up to which a site's shell is kept.
        cutoff: search radius in Å, enlarged while any site has fewer neighbours.
        canonical: merge the two findings of a bond (single-property models); otherwise a bond
            found from both ends is there twice (the published multi-property models).
    """
    fractional = structure.frac_coords
    raw = np.ascontiguousarray(structure.lattice.matrix)
    rounded = np.around(raw, 5)
    cartesian = np.dot(fractional, rounded)
    longest = np.round(np.sqrt(np.sum(rounded**2, axis=1)), 6).max()
    radius = cutoff
    while True:
        center, other, image, _ = _search(cartesian, raw, radius + 0.01)
        distance = _reference_distance(center, other, image, cartesian, raw)
        near = (distance <= radius) & (distance > 0.15)
        center, other, image, distance = center[near], other[near], image[near], distance[near]
        reach = _nth_distance(center, distance, len(cartesian), max_neighbors)
        if np.isfinite(reach).all():
            break
        radius = longest if radius < longest else 2 * radius
    keep = distance <= reach[center]
    start, end, image = center[keep], other[keep], image[keep].astype(np.int64)
    if canonical:
        start, end, image = _merge_directions(start, end, image)
    vector = np.dot((fractional[end] + image) - fractional[start], rounded)
    return _sorted_by_receiver(
        np.concatenate([start, end]),
        np.concatenate([end, start]),
        np.concatenate([vector, -vector]),
    )


def _search(
    cartesian: np.ndarray, lattice: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns center, other, image and distance of all pairs within a radius, selves left out."""
    center, other, image, distance = find_points_in_spheres(
        cartesian, cartesian, radius, _PERIODIC, lattice
    )
    apart = distance > 1e-8
    return center[apart], other[apart], image[apart], distance[apart]


def _nth_distance(center: np.ndarray, distance: np.ndarray, sites: int, nth: int) -> np.ndarray:
    """Returns the distance of each site's nth neighbour, infinite where it has fewer."""
    ordered = distance[np.lexsort((distance, center))]
    count = np.bincount(center, minlength=sites)
    first = np.cumsum(count) - count
    result = np.full(sites, np.inf)
    enough = count >= nth
    result[enough] = ordered[first[enough] + nth - 1]
    return result


def _reference_distance(
    center: np.ndarray, other: np.ndarray, image: np.ndarray, cartesian: np.ndarray, raw: np.ndarray
) -> np.ndarray:
    """Returns distances in the reference's order: ((i0·L0 + i1·L1) + i2·L2) + x, then the norm."""
    shift = (image[:, :1] * raw[0] + image[:, 1:2] * raw[1]) + image[:, 2:] * raw[2]
    x, y, z = ((shift + cartesian[other]) - cartesian[center]).T
    return np.sqrt((x * x + y * y) + z * z)


def _merge_directions(
    start: np.ndarray, end: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each bond once, written from its smaller site; a self-image keeps both its signs."""
    swap = end < start
    start, end = np.where(swap, end, start), np.where(swap, start, end)
    image = np.where(swap[:, None], -image, image)
    rows = np.unique(np.column_stack([start, end, image]), axis=0)
    return rows[:, 0], rows[:, 1], rows[:, 2:]


def _sorted_by_receiver(sender: np.ndarray, receiver: np.ndarray, vector: np.ndarray) -> Bonds:
    order = np.lexsort((sender, receiver))
    return Bonds(sender[order], receiver[order], vector[order])
