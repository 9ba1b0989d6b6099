"""Crystals that are in two parts of a split: what is tested on was trained on.

Two entries are one crystal if they have the same composition, nearly the same density, and nearly
the same average minimum distances: for each element the distance to the first, second, ...
neighbour, averaged over its sites. These do not depend on how a cell is written and change little
where atoms move little (Widdowson et al., MATCH Commun. Math. Comput. Chem. 87, 529 (2022)).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.content import Content
from jaxmat.crystals.descriptors import descriptor_columns
from jaxmat.crystals.graph import GraphSettings
from jaxmat.crystals.neighbors import MAX_CUTOFF, neighbor_distances
from jaxmat.data.contents import Contents
from jaxmat.data.findings import some
from jaxmat.data.splits import Split
from jaxmat.data.store import GraphStore
from jaxmat.errors import counted

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
# Å, a power of two, above all distances.
_BEYOND = 32.0


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
    candidates = _Candidates.of(crystals, part, volumes)
    sieves: list[Sieve] = []
    if graphs is not None and settings is not None and _knows_shells(settings):
        near = tolerance + 2 * settings.tolerance
        shells = _Shells(graphs, candidates.elements, min(settings.max_neighbors, _NEIGHBORS))
        sieves = [_by_nearest(graphs, near), lambda pairs: shells.alike(pairs, near)]
    distances: dict[int, np.ndarray] = {}

    def are_same(i: int, j: int) -> bool:
        for one in (i, j):
            if one not in distances:
                distances[one] = _average_distances(crystals[one])
        return bool(np.abs(distances[i] - distances[j]).max() <= tolerance)

    found = []
    for pairs in candidates.pairs():
        for sieve in sieves:
            pairs = pairs.take(sieve(pairs))
        for i, others in pairs.by_later():
            if (j := next((j for j in others if are_same(i, j)), None)) is not None:
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
    return "\n".join([f"In two parts of the split: {counted(len(duplicates), 'crystal')}:", *lines])


def _average_distances(crystal: Content) -> np.ndarray:
    """Returns average minimum distances in Å, elements in order, [elements, neighbours]."""
    numbers = crystal.atomic_number
    distances = neighbor_distances(crystal, _NEIGHBORS)
    return np.stack([distances[numbers == number].mean(axis=0) for number in np.unique(numbers)])


def _knows_shells(settings: GraphSettings) -> bool:
    """Whether the first bonds of a site are to its nearest neighbours, with whatever settings."""
    return settings.neighbor_rule == "complete_shells" and settings.max_cutoff == MAX_CUTOFF


class _Pairs(NamedTuple):
    """Crystals, each with another that is in an earlier part; those of one crystal in a row.

    Attributes:
        later: int64 [pairs].
        earlier: ascending for each crystal, int64 [pairs].
    """

    later: np.ndarray
    earlier: np.ndarray

    def take(self, which: np.ndarray) -> _Pairs:
        """Returns some of the pairs, in order."""
        return _Pairs(self.later[which], self.earlier[which])

    def by_later(self) -> Iterator[tuple[int, list[int]]]:
        """Yields crystals, each with its others."""
        starts = np.flatnonzero(np.diff(self.later, prepend=-1))
        for others in np.split(np.arange(len(self.later)), starts[1:]) if len(starts) else ():
            yield int(self.later[others[0]]), self.earlier[others].tolist()


# Says which of some pairs may be the same crystals, bool [pairs].
Sieve = Callable[[_Pairs], np.ndarray]


class _Candidates(NamedTuple):
    """Crystals by composition, and within one by volume.

    Attributes:
        part: of each crystal, ascending, [crystals].
        elements: how many there are in each crystal, [crystals].
        order: the crystals by composition and volume, [crystals].
        asked: crystals that are in another part than an earlier one of their composition, by
            composition, [asked].
        first, last: where those of their composition and of about their volume begin and end in
            the order, [asked].
    """

    part: np.ndarray
    elements: np.ndarray
    order: np.ndarray
    asked: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, crystals: Contents, part: np.ndarray, volumes: float) -> _Candidates:
        """Returns them.

        Args:
            crystals: part after part.
            part: of each crystal, [crystals].
            volumes: difference at most of the volumes of an atom, relative.
        """
        group, elements = crystals.composition_groups()
        volume = crystals.volumes() / crystals.sites
        ascending = np.sort(volume)
        # Compositions and volumes as one whole number, which is exact.
        base = group * (len(group) + 1)
        order = np.lexsort((volume, group))
        place = np.empty_like(order)
        place[np.argsort(volume, kind="stable")] = np.arange(len(order))
        keys = (base + place)[order]
        # Groups are numbered as they come, so that the first of each has the earliest part.
        _, of_group = np.unique(group, return_index=True)
        asked = np.flatnonzero(part > part[of_group][group])
        asked = asked[np.argsort(group[asked], kind="stable")]
        least = np.searchsorted(ascending, volume[asked] * (1 - volumes), side="left")
        most = np.searchsorted(ascending, volume[asked] * (1 + volumes), side="right")
        first, last = (np.searchsorted(keys, base[asked] + bound) for bound in (least, most))
        return cls(part, elements, order, asked, first, last)

    def pairs(self) -> Iterator[_Pairs]:
        """Yields some pairs after others."""
        counts = self.last - self.first
        ends = np.cumsum(counts)
        start = 0
        while start < len(self.asked):
            before = ends[start] - counts[start]
            end = max(start + 1, int(np.searchsorted(ends, before + _TOGETHER, side="right")))
            some = slice(start, end)
            later = np.repeat(self.asked[some], counts[some])
            begin = np.repeat(self.first[some] - ends[some] + counts[some], counts[some])
            earlier = self.order[begin + np.arange(before, ends[end - 1])]
            which = np.flatnonzero(self.part[earlier] < self.part[later])
            sequence = np.repeat(np.arange(end - start), counts[some])[which]
            yield _Pairs(later, earlier).take(which[np.lexsort((earlier[which], sequence))])
            start = end


def _by_nearest(graphs: GraphStore, near: float) -> Sieve:
    """Returns what compares the distances to the nearest neighbour, averaged over all sites.

    Where the first average distances are close for each element, so is this.

    Args:
        graphs: of the crystals.
        near: difference at most, Å.
    """
    column = [column.name for column in descriptor_columns()].index("log_mean_nearest_distance")
    nearest = np.exp(graphs.descriptors([column])[:, 0])
    return lambda pairs: np.abs(nearest[pairs.later] - nearest[pairs.earlier]) <= near


class _Shells:
    """The first average distances of crystals, found when they are asked for."""

    def __init__(self, graphs: GraphStore, elements: np.ndarray, neighbors: int) -> None:
        """Notes what is asked about.

        Args:
            graphs: of the crystals.
            elements: how many there are in each crystal.
            neighbors: how many distances of each element.
        """
        self._graphs, self._elements, self._neighbors = graphs, elements, neighbors
        self._start = np.cumsum(elements) - elements
        self._known = np.zeros(len(elements), bool)
        self._values = np.empty((elements.sum(), neighbors))

    def alike(self, pairs: _Pairs, near: float) -> np.ndarray:
        """Returns which pairs differ by so many Å at most in each distance, bool [pairs]."""
        if not len(pairs.later):
            return np.empty(0, bool)
        self._find(np.unique(np.concatenate(pairs)))
        elements = self._elements[pairs.later]
        ends = np.cumsum(elements)
        within = np.arange(ends[-1]) - np.repeat(ends - elements, elements)
        later, earlier = (self._values[np.repeat(self._start[x], elements) + within] for x in pairs)
        apart = np.abs(later - earlier).max(axis=1)
        return np.maximum.reduceat(apart, ends - elements) <= near

    def _find(self, crystals: np.ndarray) -> None:
        missing = crystals[~self._known[crystals]]
        missing = missing[np.argsort(self._graphs.places[missing])]
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            elements = self._elements[some]
            ends = np.cumsum(elements)
            rows = np.arange(ends[-1]) + np.repeat(self._start[some] - ends + elements, elements)
            self._values[rows] = _shells(self._graphs.take(some), self._neighbors)
        self._known[missing] = True


def _shells(graphs: GraphStore, neighbors: int) -> np.ndarray:
    """Returns the first average distances of each element of each crystal, [elements, n]."""
    rows = graphs.fields(
        ["atomic_number", "site_count", "bond_receiver", "bond_multiplicity", "bond_length"]
    )
    sites, bonds, _ = graphs.sizes.T
    crystal = np.repeat(np.arange(len(sites)), sites)
    receiver = rows["bond_receiver"] + np.repeat(np.cumsum(sites) - sites, bonds)
    # Site and distance as one number, of which whole arrays are sorted fast.
    site_and_length = receiver * _BEYOND + rows["bond_length"]
    all_bonds = np.sort(np.repeat(site_and_length, rows["bond_multiplicity"]))
    counts = np.bincount(receiver, rows["bond_multiplicity"], len(crystal)).astype(np.int64)
    rank = np.arange(neighbors)
    place = (np.cumsum(counts) - counts)[:, None] + rank
    distances = np.full((len(crystal), neighbors), MAX_CUTOFF)
    there = rank < counts[:, None]
    site = np.nonzero(there)[0]
    distances[there] = all_bonds[place[there]] - site * _BEYOND
    element = crystal * 256 + rows["atomic_number"]
    order = np.argsort(element, kind="stable")
    first = np.flatnonzero(np.diff(element[order], prepend=-1))
    weight = rows["site_count"][order].astype(float)
    sums = np.add.reduceat(distances[order] * weight[:, None], first)
    return sums / np.add.reduceat(weight, first)[:, None]
