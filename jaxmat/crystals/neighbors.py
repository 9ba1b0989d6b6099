"""Which sites are bonded: the two neighbour rules, on pymatgen's compiled search.

A site searches only as far as its own shell, so that memory grows with the number of sites
whatever lies around them: a lone atom far from a dense cluster makes no other site search there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from jaxmat.crystals.content import Content

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
        return Pairs(*(values.take(rows, axis=0) for values in self))


class Cell(NamedTuple):
    """What a search needs of a crystal.

    Attributes:
        fractional: coordinates, float64 [sites, 3].
        matrix: lattice vectors in rows, Å, float64 [3, 3].
        periodic: whether there are images, int64 [3].
        cell: which cell each site lies in, whole numbers, [sites, 3].
        positions: where sites lie once each is brought into the cell at the origin, Å, [sites, 3].
    """

    fractional: np.ndarray
    matrix: np.ndarray
    periodic: np.ndarray
    cell: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, crystal: Content) -> Cell:
        """Returns it; along what is not periodic, sites stay where they are."""
        # The search takes nothing that cannot be written, such as a mapped file.
        fractional, matrix = crystal.fractional, np.array(crystal.lattice, order="C")
        periodic = crystal.periodic.astype(np.int64)
        cell = np.floor(fractional) * periodic
        positions = np.ascontiguousarray((fractional - cell) @ matrix)
        return cls(fractional, matrix, periodic, cell.astype(np.int64), positions)

    def find_pairs(self, centers: np.ndarray, radius: float) -> Pairs:
        """Returns what lies within a radius of some sites, the sites themselves left out.

        Args:
            centers: the sites, int64 [centers].
            radius: Å.
        """
        # The search lays a grid over all positions, so they have to lie in one cell.
        row, other, image, distance = find_points_in_spheres(
            self.positions, self.positions[centers], radius, self.periodic, self.matrix
        )
        center, image = centers[row], image.astype(np.int64)
        x, y, z = image.T  # combined by columns: np.any along short rows is slow
        apart = (center != other) | (x != 0) | (y != 0) | (z != 0)
        if self.cell.any():
            image += self.cell[center] - self.cell[other]
        return Pairs(center, other, image, distance).take(np.flatnonzero(apart))


def complete_shells(
    crystal: Content,
    max_neighbors: int,
    tie_tolerance: float,
    max_cutoff: float = MAX_CUTOFF,
) -> Bonds:
    """Returns each bond i→j with j in the complete neighbour shell of i, or i in that of j.

    The shell of a site reaches as far as its `max_neighbors`-th neighbour, or `max_cutoff` where
    that is less, plus `tie_tolerance`, so that which bonds exist does not depend on rounding or on
    how the cell is written.

    Args:
        crystal: one without overlapping sites.
        max_neighbors: neighbours that a shell holds at least, if they are near enough.
        tie_tolerance: Å by which a neighbour may lie beyond the last one.
        max_cutoff: Å.
    """
    return all_complete_shells([crystal], max_neighbors, tie_tolerance, max_cutoff)[0]


def all_complete_shells(
    crystals: Sequence[Content],
    max_neighbors: int,
    tie_tolerance: float,
    max_cutoff: float = MAX_CUTOFF,
) -> list[Bonds]:
    """Returns what `complete_shells` says of each crystal, found in one pass.

    Args:
        crystals: few enough that the bonds of all fit into the processor's cache.
        max_neighbors: see `complete_shells`, as for the rest.
        tie_tolerance: Å.
        max_cutoff: Å.
    """
    cells = [Cell.of(crystal) for crystal in crystals]
    sites = np.array([len(cell.positions) for cell in cells])
    first = np.cumsum(sites) - sites
    pairs = _own_shells(
        [cell.find_pairs for cell in cells],
        sites,
        max_neighbors,
        np.array([_radius_of(cell, max_neighbors) for cell in cells]),
        max_cutoff,
        margin=tie_tolerance,
    )
    # A bond belongs to the shells of both of its ends, which may both have found it.
    receiver = np.concatenate([pairs.center, pairs.other])
    sender = np.concatenate([pairs.other, pairs.center])
    image = np.concatenate([pairs.image, -pairs.image])
    receiver, sender, image = _unique_bonds(receiver, sender, image)
    fractional = np.concatenate([cell.fractional for cell in cells])
    matrix = np.stack([cell.matrix for cell in cells])
    of_site = np.repeat(np.arange(len(cells)), sites)
    vector = np.einsum(
        "bi,bij->bj", fractional[receiver] - (fractional[sender] + image), matrix[of_site[receiver]]
    )
    ends = np.searchsorted(receiver, np.append(first, sites.sum()))
    return [
        Bonds(sender[start:end] - offset, receiver[start:end] - offset, vector[start:end])
        for offset, start, end in zip(first.tolist(), ends[:-1], ends[1:], strict=True)
    ]


def reference_shells(
    crystal: Content,
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
        crystal: one without overlapping sites.
        max_neighbors: neighbours up to which a site's shell is kept.
        cutoff: search radius in Å, enlarged for a site with fewer neighbours.
        canonical: merge the two findings of a bond (single-property models); otherwise a bond
            found from both ends is there twice (the published multi-property models).
        max_cutoff: Å, up to which the search is enlarged.
    """
    cell = Cell.of(crystal)
    fractional, raw = cell.fractional, cell.matrix
    rounded = np.around(raw, 5)
    cartesian = np.dot(fractional, rounded)

    def search(centers: np.ndarray, radius: float) -> Pairs:
        pairs = cell.find_pairs(centers, radius + 0.01)  # rounding moves sites less
        center, other, image, _ = pairs
        distance = _reference_distance(center, other, image, cartesian, raw)
        return pairs._replace(distance=distance).take(np.flatnonzero(distance > 0.15))

    center, end, image, _ = _own_shells(
        [search],
        np.array([len(fractional)]),
        max_neighbors,
        np.array([cutoff]),
        max_cutoff,
        margin=0.0,
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
    crystal: Content, neighbors: int, max_cutoff: float = MAX_CUTOFF
) -> np.ndarray:
    """Returns the distances of each site's nearest neighbours, in order, Å, [sites, neighbors].

    Args:
        crystal: the crystal.
        neighbors: how many.
        max_cutoff: Å; stands for the distance of what lies farther.
    """
    cell = Cell.of(crystal)
    sites = len(cell.positions)
    pairs = _own_shells(
        [cell.find_pairs],
        np.array([sites]),
        neighbors,
        np.array([_radius_of(cell, neighbors)]),
        max_cutoff,
        margin=0.0,
    )
    order = np.lexsort((pairs.distance, pairs.center))
    center = pairs.center[order]
    rank = np.arange(len(center)) - np.searchsorted(center, center)
    near = rank < neighbors
    result = np.full((sites, neighbors), max_cutoff)
    result[center[near], rank[near]] = pairs.distance[order][near]
    return result


def _radius_of(cell: Cell, neighbors: int) -> float:
    """Returns where to begin: the sphere with 2.5 shells at the mean density, or a smaller one."""
    (a, b, c), sites = cell.matrix.tolist(), len(cell.positions)
    volume = abs(
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
    per_site = volume / sites
    return float(min((2.5 * neighbors * per_site * 3 / (4 * np.pi)) ** (1 / 3), _FIRST_RADIUS))


def _own_shells(
    searches: Sequence[Callable[[np.ndarray, float], Pairs]],
    sites: np.ndarray,
    max_neighbors: int,
    radius: np.ndarray,
    max_cutoff: float,
    margin: float,
) -> Pairs:
    """Returns the pairs of each site up to its `max_neighbors`-th, or up to `max_cutoff`.

    Args:
        searches: of each crystal: finds all pairs of some centres within a radius, and maybe some
            farther ones.
        sites: of each crystal.
        max_neighbors: neighbours that a site's search ends with.
        radius: Å, where that of each crystal begins.
        max_cutoff: Å, where it ends.
        margin: Å by which neighbours beyond the last one are kept.

    Returns:
        The pairs; sites are numbered through all crystals.
    """
    total, first = int(sites.sum()), np.cumsum(sites) - sites
    crystal = np.repeat(np.arange(len(sites)), sites)
    shells = []
    for start in range(0, total, _BLOCK):
        centers, reach = np.arange(start, min(start + _BLOCK, total)), np.zeros(total)
        within = np.minimum(np.maximum(radius, 1.0), max_cutoff + margin)
        while centers.size:
            found = []
            for i, own in _by_crystal(centers, crystal):
                pairs = searches[i](own - first[i], float(within[i]))
                found.append(
                    pairs._replace(center=pairs.center + first[i], other=pairs.other + first[i])
                )
            pairs = Pairs(*(np.concatenate(rows) for rows in zip(*found, strict=True)))
            nth = _nth_distance(pairs.center, pairs.distance, total, max_neighbors)
            reach[centers] = np.minimum(nth[centers], max_cutoff) + margin
            done = reach <= within[crystal]
            kept = done[pairs.center] & (pairs.distance <= reach[pairs.center])
            shells.append(pairs.take(np.flatnonzero(kept)))
            centers = centers[~done[centers]]
            within = np.minimum(_GROWTH * within, max_cutoff + margin)
    return Pairs(*(np.concatenate(rows) for rows in zip(*shells, strict=True)))


def _by_crystal(centers: np.ndarray, crystal: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the crystals of sorted centres, and which of the centres are theirs."""
    of_center = crystal[centers]
    starts = np.flatnonzero(np.diff(of_center, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(centers)], strict=True):
        yield int(of_center[start]), centers[start:end]


def _nth_distance(center: np.ndarray, distance: np.ndarray, sites: int, nth: int) -> np.ndarray:
    """Returns the distance of each site's nth neighbour, infinite where it has fewer."""
    by_distance = np.argsort(distance)
    # A stable sort of small whole numbers is by digits, much faster than one of two keys.
    kind = np.uint16 if sites <= 2**16 else np.int64
    by_center = np.argsort(center[by_distance].astype(kind), kind="stable")
    ordered = distance[by_distance[by_center]]
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
    return _unique_bonds(start, end, image)


def _unique_bonds(
    first: np.ndarray, second: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns bonds, each once, sorted by first site, second site and image.

    Args:
        first: site, int64 [bonds].
        second: site, int64 [bonds].
        image: cells from one to the other, int64 [bonds, 3].
    """
    if not len(first):
        return first, second, image
    low = image.min(axis=0)
    x, y, z = (image.max(axis=0) - low + 1).tolist()
    sites = int(second.max()) + 1
    if sites**2 * x * y * z >= 2**63:  # among many crystals some are skewed, in several directions
        rows = np.unique(np.column_stack([first, second, image]), axis=0)
        return rows[:, 0], rows[:, 1], rows[:, 2:]
    # One whole number for each bond, which sorts several times faster than five.
    key = first * sites + second
    for column, size in ((0, x), (1, y), (2, z)):
        key = key * size + (image[:, column] - low[column])
    key = np.sort(key)
    key = key[np.diff(key, prepend=-1) != 0]
    pair, cell = np.divmod(key, x * y * z)
    first, second = np.divmod(pair, sites)
    cell, k = np.divmod(cell, z)
    i, j = np.divmod(cell, y)
    return first, second, np.stack([i, j, k], axis=1) + low


def _sorted_by_receiver(sender: np.ndarray, receiver: np.ndarray, vector: np.ndarray) -> Bonds:
    order = np.lexsort((sender, receiver))
    return Bonds(sender[order], receiver[order], vector[order])
