"""Crystals that are in two parts of a split: what is tested on was trained on.

Two entries are one crystal if they have the same composition, nearly the same density, and nearly
the same average minimum distances: for each element the distance to the first, second, ...
neighbour, averaged over its sites. These do not depend on how a cell is written and change little
where atoms move little (Widdowson et al., MATCH Commun. Math. Comput. Chem. 87, 529 (2022)).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import reduce
from math import gcd
from typing import NamedTuple

import numpy as np
from pymatgen.core import Structure

from jaxmat.crystals.neighbors import neighbor_distances
from jaxmat.data.findings import some
from jaxmat.data.splits import Split

# Enough to tell stackings of close-packed layers apart: fcc and hcp differ from the 19th on.
_NEIGHBORS = 32
# Å, of the average distances: most repeated relaxations of one crystal differ by less than 0.003,
# most stackings of the same layers by more than 0.006.
_TOLERANCE = 0.005
_VOLUME_TOLERANCE = 0.01  # relative


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


def find_duplicates(structures: Sequence[Structure], split: Split) -> list[Duplicate]:
    """Returns each crystal that an earlier part has, too, with one that it is the same as.

    Args:
        structures: of all rows.
        split: the rows of each part.
    """
    part_of = {row: part for part, rows in split._asdict().items() for row in rows.tolist()}
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row in part_of:
        groups[_composition(structures[row])].append(row)
    found: list[Duplicate] = []
    for rows in groups.values():
        if len({part_of[row] for row in rows}) > 1:
            found += _compare(structures, rows, part_of)
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


def _compare(
    structures: Sequence[Structure], rows: Sequence[int], part_of: dict[int, str]
) -> list[Duplicate]:
    """Returns the duplicates among rows of one composition, sorted by parts."""
    volume = np.array([structures[row].volume / len(structures[row]) for row in rows])
    part = np.array([Split._fields.index(part_of[row]) for row in rows])
    distances: dict[int, np.ndarray] = {}

    def distances_of(i: int) -> np.ndarray:
        if i not in distances:
            distances[i] = _average_distances(structures[rows[i]])
        return distances[i]

    found = []
    for i, row in enumerate(rows):
        near = np.abs(volume - volume[i]) <= _VOLUME_TOLERANCE * volume[i]
        for j in np.flatnonzero(near & (part < part[i])).tolist():
            if np.abs(distances_of(i) - distances_of(j)).max() <= _TOLERANCE:
                found.append(Duplicate(row, part_of[row], rows[j], part_of[rows[j]]))
                break
    return found


def _composition(structure: Structure) -> Hashable:
    counts = Counter(site.specie.Z for site in structure)
    divisor = reduce(gcd, counts.values())
    return frozenset((number, count // divisor) for number, count in counts.items())


def _average_distances(structure: Structure) -> np.ndarray:
    """Returns average minimum distances in Å, elements in order, [elements, neighbours]."""
    numbers = np.array([site.specie.Z for site in structure])
    distances = neighbor_distances(structure, _NEIGHBORS)
    return np.stack([distances[numbers == number].mean(axis=0) for number in np.unique(numbers)])
