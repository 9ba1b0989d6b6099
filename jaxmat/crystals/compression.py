"""Colour refinement: which sites, bonds and angles of a crystal are equivalent.

Two rows that carry the same features through every layer of a message-passing network need to be
computed once. They are found on the graph itself, without a space group: start from elements,
lengths and cosines, split classes by what flows into their members until nothing splits. The
partition is then equitable, so the network on the classes is the network on the crystal.
All functions take the disjoint union of many crystals; classes never cross crystals, and what they
are does not depend on which crystals share a union.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PlainGraph(NamedTuple):
    """The disjoint union of crystals, one row for each site, bond and angle.

    Attributes:
        site_crystal: crystal of each site, [sites].
        atomic_number: [sites].
        bond_sender, bond_receiver: sites, [bonds], sorted by receiver.
        bond_length: Å, [bonds].
        angle_sender, angle_receiver: bonds, [angles], sorted by receiver.
        angle_cosine: [angles].
    """

    site_crystal: np.ndarray
    atomic_number: np.ndarray
    bond_sender: np.ndarray
    bond_receiver: np.ndarray
    bond_length: np.ndarray
    angle_sender: np.ndarray
    angle_receiver: np.ndarray
    angle_cosine: np.ndarray


class Classes(NamedTuple):
    """Class of each row.

    Attributes:
        site: class of each site, numbered by their first members, [sites].
        bond: class of each bond, numbered by their first members, [bonds].
        angle: class of each angle, numbered by receiver, then sender, then cosine, [angles].
    """

    site: np.ndarray
    bond: np.ndarray
    angle: np.ndarray


def find_classes(graph: PlainGraph, tolerance: float) -> Classes:
    """Returns the coarsest equitable partition that respects elements, lengths and cosines.

    Args:
        graph: many crystals.
        tolerance: greatest width of a cluster of lengths (Å) or cosines taken as equal.
    """
    site = _number(graph.site_crystal, graph.atomic_number)
    ends = _number(site[graph.bond_sender], site[graph.bond_receiver])
    bond = cluster(graph.bond_length, ends, tolerance)
    site, bond = _refine_by_bonds(graph, site, bond)
    if not len(graph.angle_cosine):
        return Classes(_by_first_member(site), _by_first_member(bond), np.zeros(0, dtype=np.int64))
    # Cosines are told apart only between bonds not told apart yet, so that fewer near values chain.
    pair = _pack(bond[graph.angle_receiver], bond[graph.angle_sender])
    cosine = cluster(graph.angle_cosine, pair, tolerance)
    site, bond = _refine(graph, site, bond, cosine)
    site, bond = _by_first_member(site), _by_first_member(bond)
    angle = _number(bond[graph.angle_receiver], bond[graph.angle_sender], cosine)
    return Classes(site, bond, angle)


def cluster(values: np.ndarray, group: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns a cluster number for each value; no cluster spans more than the tolerance.

    Sorted values are cut where neighbours differ by more than the tolerance; what is still wider
    is cut at its widest gap, again and again. So values that differ only by rounding stay
    together, wherever near values form a chain.

    Args:
        values: finite numbers, [n].
        group: non-negative integers; clusters never join two groups, [n].
        tolerance: greatest width; far above the rounding noise of the values.
    """
    if not len(values):
        return np.empty(0, dtype=np.int64)
    order, starts = _cells(values, group)
    value = values[order]
    low, high = np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)
    gap = low - np.concatenate([[-np.inf], high[:-1]])
    begins = gap > tolerance
    begins[1:] |= np.diff(group[order[starts]]) != 0
    first = np.flatnonzero(begins)
    end = np.append(first[1:], len(starts))
    while True:
        wide = high[end - 1] - low[first] > tolerance
        first, end = first[wide], end[wide]
        if not len(first):
            break
        cut = _widest_gap(gap, first, end)
        begins[cut] = True
        first, end = np.concatenate([first, cut]), np.concatenate([cut, end])
    number = np.empty(len(values), dtype=np.int64)
    number[order] = np.repeat(np.cumsum(begins) - 1, np.diff(starts, append=len(values)))
    return number


def _cells(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns an order by group and value, and where in it each cell starts.

    A cell holds values of one group that are equal to nine digits or so. One integer for group and
    value sorts several times faster than the two.
    """
    levels = min(2**52, (2**63 - 1) // (int(group.max()) + 1))
    level = (values - values.min()) / (np.ptp(values) or 1.0) * (levels - 1)
    key = group * levels + level.astype(np.int64)
    order = np.argsort(key)
    return order, np.flatnonzero(np.diff(key[order], prepend=-1))


def _widest_gap(gap: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns, for each stretch [first, end), the inner position before which the gap is widest."""
    inner = end - first - 1
    stretch = np.repeat(np.arange(len(first)), inner)
    starts = np.cumsum(inner) - inner
    position = np.arange(len(stretch)) - starts[stretch] + first[stretch] + 1
    widest = np.maximum.reduceat(gap[position], starts)
    at_widest = np.flatnonzero(gap[position] == widest[stretch])
    return position[at_widest[np.diff(stretch[at_widest], prepend=-1) != 0]]


def _refine_by_bonds(
    graph: PlainGraph, site: np.ndarray, bond: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Splits sites by their bonds and bonds by their ends until nothing splits.

    Args:
        graph: many crystals.
        site: class of each site.
        bond: class of each bond; bonds of one class have ends of the same classes.
    """
    bond_end = _segment_ends(graph.bond_receiver, len(site))
    while True:
        split = _number(site, _dense(_multiset(_hashes(bond), bond_end)))
        if split.max(initial=0) == site.max(initial=0):
            return site, bond
        site = split
        bond = _number(bond, site[graph.bond_sender], site[graph.bond_receiver])


def _refine(
    graph: PlainGraph, site: np.ndarray, bond: np.ndarray, cosine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Splits classes by all that flows in, over angles as well, until nothing splits."""
    bond_end = _segment_ends(graph.bond_receiver, len(site))
    angle_end = _segment_ends(graph.angle_receiver, len(bond))
    angle_hash = _hashes(cosine, stream=1)
    count = -1
    while (total := site.max(initial=0) + bond.max(initial=0)) > count:
        count = total
        incoming = _multiset(_hashes(bond)[graph.angle_sender] * angle_hash, angle_end)
        ends = site[graph.bond_sender], site[graph.bond_receiver]
        bond = _number(bond, *ends, _dense(incoming))
        site = _number(site, _dense(_multiset(_hashes(bond), bond_end)))
    return site, bond


def _segment_ends(receiver: np.ndarray, segments: int) -> np.ndarray:
    return np.cumsum(np.bincount(receiver, minlength=segments))


def _multiset(hashes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns one number for the multiset of hashes in each segment: their sum modulo 2⁶⁴."""
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1]])
    return total[ends] - total[starts]


def _hashes(labels: np.ndarray, stream: int = 0) -> np.ndarray:
    """Returns a well-mixed odd 64-bit number for each label (splitmix64, Steele et al. 2014).

    Args:
        labels: small non-negative integers.
        stream: 0 or 1; the numbers of two streams have nothing to do with each other.
    """
    x = np.arange(1 + stream, 2 * labels.max(initial=0) + 3, 2, dtype=np.uint64)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31)) | np.uint64(1))[labels]


def _number(*columns: np.ndarray) -> np.ndarray:
    """Returns the rank of each row of several label columns among the distinct rows."""
    return _dense(_pack(*columns))


def _pack(*columns: np.ndarray) -> np.ndarray:
    """Returns an integer for each row of several label columns that sorts as the rows do."""
    packed = columns[0].astype(np.int64)
    for column in columns[1:]:
        labels = int(column.max(initial=0)) + 1
        if int(packed.max(initial=0)) >= 2**62 // labels:
            packed = _dense(packed)
        packed = packed * labels + column
    return packed


def _dense(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


def _by_first_member(labels: np.ndarray) -> np.ndarray:
    """Returns the labels renumbered in the order in which classes first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
