"""Crystals that are in two parts of a split: what is tested on was trained on.

Two entries are one crystal if they have the same composition, nearly the same density, and nearly
the same average minimum distances: for each element the distance to the first, second, ...
neighbour, averaged over its sites. These do not depend on how a cell is written and change little
where atoms move little (Widdowson et al., MATCH Commun. Math. Comput. Chem. 87, 529 (2022)).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.content import Content
from jaxmat.crystals.descriptors import descriptor_columns
from jaxmat.crystals.graph import GraphSettings, Joined
from jaxmat.crystals.neighbors import MAX_CUTOFF, neighbor_distances
from jaxmat.data.contents import Contents
from jaxmat.data.findings import some
from jaxmat.data.splits import Split
from jaxmat.data.store import GraphStore

# Enough to tell stackings of close-packed layers apart: fcc and hcp differ from the 19th on.
_NEIGHBORS = 32
# Å, of the average distances: most repeated relaxations of one crystal differ by less than 0.003,
# most stackings of the same layers by more than 0.006.
_TOLERANCE = 0.005
_VOLUME_TOLERANCE = 0.01  # relative
# The same where stackings, and relaxations farther apart, are to be found as well.
_WIDE, _WIDE_VOLUME = 0.1, 0.05
# Crystals whose graphs are in memory, and pairs of crystals.
_AT_ONCE, _TOGETHER = 4096, 2**18


class Duplicate(NamedTuple):
    """A crystal of one part that is in another, too.

    Attributes:
        row: the crystal.
        part: where it is.
        other: the same crystal.
        other_part: where that is, a part that comes before.
    """

    row: int
    part: str
    other: int
    other_part: str


def find_duplicates(
    contents: Contents,
    split: Split,
    graphs: GraphStore | None = None,
    settings: GraphSettings | None = None,
    *,
    wide: bool = False,
) -> list[Duplicate]:
    """Returns each crystal that an earlier part has, too, with one that it is the same as.

    Args:
        contents: of all rows.
        split: the rows of each part.
        graphs: of the parts' rows one after another, where there are some; their descriptors and
            bonds tell most crystals apart, without a search for neighbours.
        settings: of the graphs.
        wide: whether stackings of the same layers, and relaxations of one crystal that are farther
            apart than most, are the same, too.
    """
    tolerance, volumes = (_WIDE, _WIDE_VOLUME) if wide else (_TOLERANCE, _VOLUME_TOLERANCE)
    rows = np.concatenate(split)
    crystals = contents.take(rows)
    part = np.repeat(np.arange(len(split)), [len(one) for one in split])
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, composition in enumerate(crystals.compositions()):
        groups[composition].append(i)
    volume, nearest = crystals.volumes() / crystals.sites, np.zeros(len(rows))
    near, neighbors = tolerance, 0
    if graphs is not None and settings is not None and _knows_shells(settings):
        nearest, neighbors = _nearest(graphs), min(settings.max_neighbors, _NEIGHBORS)
        near += 2 * settings.tolerance
    distances: dict[int, np.ndarray] = {}

    def are_same(i: int, j: int) -> bool:
        for one in (i, j):
            if one not in distances:
                distances[one] = _average_distances(crystals[one])
        return bool(np.abs(distances[i] - distances[j]).max() <= tolerance)

    found = []
    for members in map(np.array, groups.values()):
        if part[members[0]] == part[members[-1]]:
            continue
        shells = _Shells(graphs, members, neighbors) if graphs is not None and neighbors else None
        group = _Group(volume[members], nearest[members], shells)
        # Parts come one after another, so that earlier members are in earlier parts.
        before = np.searchsorted(part[members], part[members])
        for number, others in group.alike(before, volumes, near):
            i, earlier = members[number], members[others].tolist()
            if (j := next((j for j in earlier if are_same(i, j)), None)) is not None:
                names = Split._fields[part[i]], Split._fields[part[j]]
                found.append(Duplicate(int(rows[i]), names[0], int(rows[j]), names[1]))
    return found


def describe_duplicates(duplicates: Sequence[Duplicate], ids: Sequence[str]) -> str:
    """Returns how many crystals of each part an earlier part has, too, with the first ids.

    Args:
        duplicates: at least one.
        ids: of all rows.
    """
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row, part, other, other_part in duplicates:
        pairs[part, other_part].append(f"{ids[row]} = {ids[other]}")
    lines = [
        f"  {len(equal)} of the {part} part in the {other} part ({some(equal)})"
        for (part, other), equal in pairs.items()
    ]
    return "\n".join([f"{len(duplicates)} crystals are in two parts of the split:", *lines])


def _average_distances(crystal: Content) -> np.ndarray:
    """Returns average minimum distances in Å, elements in order, [elements, neighbours]."""
    numbers = crystal.atomic_number
    distances = neighbor_distances(crystal, _NEIGHBORS)
    return np.stack([distances[numbers == number].mean(axis=0) for number in np.unique(numbers)])


def _knows_shells(settings: GraphSettings) -> bool:
    """Whether the first bonds of a site are to its nearest neighbours, with whatever settings."""
    return settings.neighbor_rule == "complete_shells" and settings.max_cutoff == MAX_CUTOFF


def _nearest(graphs: GraphStore) -> np.ndarray:
    """Returns the distance to the nearest neighbour in Å, averaged over the sites of each graph.

    Where the first average distances are close for each element, so is this.
    """
    column = [column.name for column in descriptor_columns()].index("log_mean_nearest_distance")
    parts = [
        graphs[start : start + _AT_ONCE].descriptors()[:, column]
        for start in range(0, len(graphs), _AT_ONCE)
    ]
    return np.exp(np.concatenate([*parts, np.empty(0)]))


class _Group(NamedTuple):
    """Crystals with one composition, and what tells most of them apart.

    Attributes:
        volume: of an atom in Å³, [crystals].
        nearest: from `_nearest`, zeros where it is not known, [crystals].
        shells: of the crystals, where they are known.
    """

    volume: np.ndarray
    nearest: np.ndarray
    shells: _Shells | None

    def alike(
        self, before: np.ndarray, volumes: float, near: float
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields crystals, each with those that come before and may be the same.

        Args:
            before: how many come before each crystal, in parts before its own, [crystals].
            volumes: difference of volumes at most, relative.
            near: difference of distances at most, Å.
        """
        waiting, count = list[tuple[int, np.ndarray]](), 0
        for number in np.flatnonzero(before).tolist():
            first = slice(before[number])
            alike = (
                np.abs(self.volume[first] - self.volume[number]) <= volumes * self.volume[number]
            )
            alike &= np.abs(self.nearest[first] - self.nearest[number]) <= near
            others = np.flatnonzero(alike)
            if len(others):
                waiting.append((number, others))
                count += len(others)
            if count > _TOGETHER:
                yield from self._alike_by_shells(waiting, near)
                waiting, count = [], 0
        yield from self._alike_by_shells(waiting, near)

    def _alike_by_shells(
        self, pairs: list[tuple[int, np.ndarray]], near: float
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields what is left of crystals and others when their shells are looked at."""
        if self.shells is None or not pairs:
            yield from pairs
            return
        asked = np.concatenate([np.append(others, number) for number, others in pairs])
        self.shells.of(np.unique(asked))  # found together
        for number, others in pairs:
            shells = self.shells.of(np.append(others, number))
            yield number, others[np.abs(shells[:-1] - shells[-1]).max(axis=1) <= near]


class _Shells:
    """The first average distances of crystals with one composition, found when asked for."""

    def __init__(self, graphs: GraphStore, rows: np.ndarray, neighbors: int) -> None:
        """Notes what is asked about.

        Args:
            graphs: of many crystals.
            rows: those of them that are meant.
            neighbors: how many distances of each element.
        """
        self._graphs, self._rows, self._neighbors = graphs, rows, neighbors
        self._known = np.zeros(len(rows), bool)
        self._values = np.empty((len(rows), 0))

    def of(self, places: np.ndarray) -> np.ndarray:
        """Returns those of some of the rows in Å, [places, elements · neighbours]."""
        missing = places[~self._known[places]]
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            found = _shells(self._graphs.take(self._rows[some]).joined(), self._neighbors)
            if not self._values.size:
                self._values = np.empty((len(self._rows), found.size // len(some)))
            self._values[some] = found.reshape(len(some), -1)
        self._known[missing] = True
        return self._values[places]


def _shells(graphs: Joined, neighbors: int) -> np.ndarray:
    """Returns the first average distances of each element of each crystal, [elements, n]."""
    sites, bonds, _ = graphs.sizes.T
    rows, crystal = graphs.rows, np.repeat(np.arange(len(sites)), sites)
    receiver = rows.bond_receiver + np.repeat(np.cumsum(sites) - sites, bonds)
    order = np.lexsort((rows.bond_length, receiver))
    times = rows.bond_multiplicity[order]
    receiver, length = np.repeat(receiver[order], times), np.repeat(rows.bond_length[order], times)
    rank = np.arange(len(receiver)) - np.searchsorted(receiver, receiver)
    near = rank < neighbors
    distances = np.full((len(crystal), neighbors), MAX_CUTOFF)
    distances[receiver[near], rank[near]] = length[near]
    elements, place = np.unique(crystal * 256 + rows.atomic_number, return_inverse=True)
    count = np.bincount(place, rows.site_count)
    sums = np.zeros((len(elements), neighbors))
    np.add.at(sums, place, distances * rows.site_count[:, None])
    return sums / count[:, None]
