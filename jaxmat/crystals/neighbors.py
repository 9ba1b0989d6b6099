"""Which sites are bonded: the two neighbour rules, on pymatgen's compiled search.

A site searches only as far as its own shell, so that memory grows with the number of sites
whatever lies around them: a lone atom far from a dense cluster makes no other site search there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from pymatgen.core import Structure
from pymatgen.optimization.neighbors import find_points_in_spheres

# Å, three times the published search radius. In the 35,000 crystals of the paper's tables, exploded
# ones among them, the twelfth neighbour lies within 20.1 Å.
MAX_CUTOFF = 24.0
# Å; where a search begins at most, which keeps it small at any density that is let in.
_FIRST_RADIUS = 6.0
_GROWTH = 1.3
# Sites that search together.
_BLOCK = 500


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


class Pairs(NamedTuple):
    """Sites near others.

    Attributes:
        center: a site, int64 [pairs].
        other: a site with an image near it, int64 [pairs].
        image: cells from the other site to that image, int64 [pairs, 3].
        distance: Å, float64 [pairs].
    """

    center: np.ndarray
    other: np.ndarray
    image: np.ndarray
    distance: np.ndarray

    def take(self, rows: np.ndarray) -> Pairs:
        """Returns some of the pairs."""
        return Pairs(*(values[rows] for values in self))


def find_pairs(structure: Structure, centers: np.ndarray, radius: float) -> Pairs:
    """Returns what lies within a radius of some sites, the sites themselves left out.

    Args:
        structure: any crystal; what its `pbc` calls not periodic has no images.
        centers: the sites, int64 [centers].
        radius: Å.
    """
    # The search lays a grid over all positions, so they have to lie in one cell.
    positions = positions_in_cell(structure)
    row, other, image, distance = find_points_in_spheres(
        positions,
        positions[centers],
        radius,
        np.array(structure.pbc, dtype=np.int64),
        np.ascontiguousarray(structure.lattice.matrix),
    )
    center, image = centers[row], image.astype(np.int64)
    apart = (center != other) | image.any(axis=1)
    cell = _cells(structure)
    image = image + (cell[center] - cell[other]).astype(np.int64)
    return Pairs(center, other, image, distance).take(apart)


def positions_in_cell(structure: Structure) -> np.ndarray:
    """Returns where sites lie once each is brought into the cell at the origin, Å, [sites, 3].

    Args:
        structure: any crystal; along what its `pbc` calls not periodic, sites stay where they are.
    """
    fractional = structure.frac_coords - _cells(structure)
    return np.ascontiguousarray(fractional @ structure.lattice.matrix)


def _cells(structure: Structure) -> np.ndarray:
    """Returns which cell each site lies in, whole numbers, [sites, 3]."""
    return np.where(structure.pbc, np.floor(structure.frac_coords), 0.0)


def complete_shells(
    structure: Structure,
    max_neighbors: int,
    tie_tolerance: float,
    max_cutoff: float = MAX_CUTOFF,
) -> Bonds:
    """Returns each bond i→j with j in the complete neighbour shell of i, or i in that of j.

    The shell of a site reaches as far as its `max_neighbors`-th neighbour, or `max_cutoff` where
    that is less, plus `tie_tolerance`, so that which bonds exist does not depend on rounding or on
    how the cell is written.

    Args:
        structure: a crystal without overlapping sites.
        max_neighbors: neighbours that a shell holds at least, if they are near enough.
        tie_tolerance: Å by which a neighbour may lie beyond the last one.
        max_cutoff: Å.
    """
    pairs = _own_shells(
        partial(find_pairs, structure),
        len(structure),
        max_neighbors,
        _radius_of(structure, max_neighbors),
        max_cutoff,
        margin=tie_tolerance,
    )
    # A bond belongs to the shells of both of its ends, which may both have found it.
    rows = np.column_stack(
        [
            np.concatenate([pairs.center, pairs.other]),
            np.concatenate([pairs.other, pairs.center]),
            np.concatenate([pairs.image, -pairs.image]),
        ]
    )
    rows = _unique_rows(rows)
    receiver, sender, image = rows[:, 0], rows[:, 1], rows[:, 2:]
    cartesian = structure.cart_coords
    vector = cartesian[receiver] - (cartesian[sender] + image @ structure.lattice.matrix)
    return Bonds(sender, receiver, vector)


def reference_shells(
    structure: Structure,
    max_neighbors: int,
    cutoff: float,
    canonical: bool,
    max_cutoff: float = MAX_CUTOFF,
) -> Bonds:
    """Returns the bonds of the published ALIGNN graphs, ties broken by the last bit as there.

    The reference rounds the lattice to five decimals for positions but not for image shifts, and
    keeps whatever lies no further than the `max_neighbors`-th neighbour by exact float64
    comparison; distances are therefore computed in its own order of operations
    (jarvis-tools `Atoms.get_all_neighbors`, ALIGNN 2023.06 `nearest_neighbor_edges`). It enlarges
    its search without end; here that ends, and a site keeps the neighbours found.

    Args:
        structure: a crystal without overlapping sites.
        max_neighbors: neighbours up to which a site's shell is kept.
        cutoff: search radius in Å, enlarged for a site with fewer neighbours.
        canonical: merge the two findings of a bond (single-property models); otherwise a bond
            found from both ends is there twice (the published multi-property models).
        max_cutoff: Å, up to which the search is enlarged.
    """
    fractional = structure.frac_coords
    raw = structure.lattice.matrix
    rounded = np.around(raw, 5)
    cartesian = np.dot(fractional, rounded)

    def search(centers: np.ndarray, radius: float) -> Pairs:
        pairs = find_pairs(structure, centers, radius + 0.01)  # rounding moves sites less
        center, other, image, _ = pairs
        distance = _reference_distance(center, other, image, cartesian, raw)
        return pairs._replace(distance=distance).take(distance > 0.15)

    center, end, image, _ = _own_shells(
        search, len(structure), max_neighbors, cutoff, max_cutoff, margin=0.0
    )
    start = center
    if canonical:
        start, end, image = _merge_directions(start, end, image)
    vector = np.dot((fractional[end] + image) - fractional[start], rounded)
    return _sorted_by_receiver(
        np.concatenate([start, end]),
        np.concatenate([end, start]),
        np.concatenate([vector, -vector]),
    )


def neighbor_distances(
    structure: Structure, neighbors: int, max_cutoff: float = MAX_CUTOFF
) -> np.ndarray:
    """Returns the distances of each site's nearest neighbours, in order, Å, [sites, neighbors].

    Args:
        structure: a crystal.
        neighbors: how many.
        max_cutoff: Å; stands for the distance of what lies farther.
    """
    radius = _radius_of(structure, neighbors)
    search = partial(find_pairs, structure)
    pairs = _own_shells(search, len(structure), neighbors, radius, max_cutoff, margin=0.0)
    order = np.lexsort((pairs.distance, pairs.center))
    center = pairs.center[order]
    rank = np.arange(len(center)) - np.searchsorted(center, center)
    near = rank < neighbors
    result = np.full((len(structure), neighbors), max_cutoff)
    result[center[near], rank[near]] = pairs.distance[order][near]
    return result


def _radius_of(structure: Structure, neighbors: int) -> float:
    """Returns where to begin: the sphere with 2.5 shells at the mean density, or a smaller one."""
    per_site = structure.volume / len(structure)
    return min((2.5 * neighbors * per_site * 3 / (4 * np.pi)) ** (1 / 3), _FIRST_RADIUS)


def _own_shells(
    search: Callable[[np.ndarray, float], Pairs],
    sites: int,
    max_neighbors: int,
    radius: float,
    max_cutoff: float,
    margin: float,
) -> Pairs:
    """Returns the pairs of each site up to its `max_neighbors`-th, or up to `max_cutoff`.

    Args:
        search: finds all pairs of some centres within a radius, and maybe some farther ones.
        sites: of the crystal.
        max_neighbors: neighbours that a site's search ends with.
        radius: Å, where it begins.
        max_cutoff: Å, where it ends.
        margin: Å by which neighbours beyond the last one are kept.
    """
    shells = []
    for first in range(0, sites, _BLOCK):
        centers, reach = np.arange(first, min(first + _BLOCK, sites)), np.zeros(sites)
        within = min(max(radius, 1.0), max_cutoff + margin)
        while centers.size:
            pairs = search(centers, within)
            nth = _nth_distance(pairs.center, pairs.distance, sites, max_neighbors)
            reach[centers] = np.minimum(nth[centers], max_cutoff) + margin
            done = reach <= within
            shells.append(pairs.take(done[pairs.center] & (pairs.distance <= reach[pairs.center])))
            centers = centers[~done[centers]]
            within = min(_GROWTH * within, max_cutoff + margin)
    return Pairs(*(np.concatenate(rows) for rows in zip(*shells, strict=True)))


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
    rows = _unique_rows(np.column_stack([start, end, image]))
    return rows[:, 0], rows[:, 1], rows[:, 2:]


def _unique_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the rows of integers, each once, sorted (np.unique on an axis is slower)."""
    rows = rows[np.lexsort(rows.T[::-1])]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[new]


def _sorted_by_receiver(sender: np.ndarray, receiver: np.ndarray, vector: np.ndarray) -> Bonds:
    order = np.lexsort((sender, receiver))
    return Bonds(sender[order], receiver[order], vector[order])
