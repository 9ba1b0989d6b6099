"""Colour refinement: which sites, bonds and angles of a crystal are equivalent.

Two rows that carry the same features through every layer of a message-passing network need to be
computed once. They are found on the graph itself, without a space group: start from elements,
lengths and cosines, split classes by what flows into their members until nothing splits. The
partition is then equitable, so the network on the classes is the network on the crystal.
All functions take the disjoint union of many crystals; classes never cross crystals.
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
    """Class of each row; classes are numbered by their first members.

    Attributes:
        site: class of each site, [sites].
        bond: class of each bond, [bonds].
        angle: class of each angle, [angles].
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
    site = _dense(_combine(graph.site_crystal, graph.atomic_number))
    ends = _dense(_combine(site[graph.bond_sender], site[graph.bond_receiver]))
    bond = cluster(graph.bond_length, ends, tolerance)
    site, bond = _refine(graph, site, bond, cosine=None)
    # Cosines are told apart only between bonds not told apart yet, so that fewer near values chain.
    pair = _dense(_combine(bond[graph.angle_receiver], bond[graph.angle_sender]))
    cosine = cluster(graph.angle_cosine, pair, tolerance)
    site, bond = _refine(graph, site, bond, cosine)
    angle = _dense(_combine(bond[graph.angle_receiver], bond[graph.angle_sender], cosine))
    return Classes(_by_first_member(site), _by_first_member(bond), _by_first_member(angle))


def cluster(values: np.ndarray, group: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns a cluster number for each value; no cluster spans more than the tolerance.

    Sorted values are cut where neighbours differ by more than the tolerance; what is still wider
    is cut at its widest gap, again and again. So values that differ only by rounding stay
    together, wherever near values form a chain.

    Args:
        values: finite numbers, [n].
        group: non-negative integers; clusters never join two groups, [n].
        tolerance: greatest width.
    """
    order = np.lexsort((values, group))
    value, member = values[order], group[order]
    gap = np.diff(value, prepend=0)
    begins = gap > tolerance
    begins[1:] |= member[1:] != member[:-1]
    begins[:1] = True
    first = np.flatnonzero(begins)
    end = np.append(first[1:], len(value))
    while True:
        wide = value[end - 1] - value[first] > tolerance
        first, end = first[wide], end[wide]
        if not len(first):
            break
        cut = _widest_gap(gap, first, end)
        begins[cut] = True
        first, end = np.concatenate([first, cut]), np.concatenate([cut, end])
    number = np.empty(len(values), dtype=np.int64)
    number[order] = np.cumsum(begins) - 1
    return number


def _widest_gap(gap: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns, for each stretch [first, end), the inner position before which the gap is widest."""
    inner = end - first - 1
    stretch = np.repeat(np.arange(len(first)), inner)
    starts = np.cumsum(inner) - inner
    position = np.arange(len(stretch)) - starts[stretch] + first[stretch] + 1
    widest = np.maximum.reduceat(gap[position], starts)
    at_widest = np.flatnonzero(gap[position] == widest[stretch])
    return position[at_widest[np.unique(stretch[at_widest], return_index=True)[1]]]


def _refine(
    graph: PlainGraph, site: np.ndarray, bond: np.ndarray, cosine: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits classes by what flows in until nothing splits; without angles while cosine is None."""
    bond_end = _segment_ends(graph.bond_receiver, len(site))
    angle_end = _segment_ends(graph.angle_receiver, len(bond))
    count = -1
    while (total := site.max(initial=0) + bond.max(initial=0)) > count:
        count = total
        parts = [bond, site[graph.bond_sender], site[graph.bond_receiver]]
        if cosine is not None:
            incoming = _combine(bond[graph.angle_sender], cosine)
            parts.append(_multiset(incoming, angle_end))
        bond = _dense(_combine(*parts))
        site = _dense(_combine(site, _multiset(_mix(bond.astype(np.uint64)), bond_end)))
    return site, bond


def _segment_ends(receiver: np.ndarray, segments: int) -> np.ndarray:
    return np.cumsum(np.bincount(receiver, minlength=segments))


def _multiset(hashes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns one number for the multiset of hashes in each segment: their sum modulo 2⁶⁴."""
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1]])
    return total[ends] - total[starts]


def _mix(x: np.ndarray) -> np.ndarray:
    """Returns a well-mixed 64-bit hash (the finaliser of splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _combine(*parts: np.ndarray) -> np.ndarray:
    """Returns one 64-bit hash for each row of several integer columns."""
    result = _mix(parts[0].astype(np.uint64))
    for part in parts[1:]:
        result = _mix(result ^ _mix(part.astype(np.uint64)) * np.uint64(0xD6E8FEB86659FD93))
    return result


def _dense(hashes: np.ndarray) -> np.ndarray:
    return np.unique(hashes, return_inverse=True)[1]


def _by_first_member(labels: np.ndarray) -> np.ndarray:
    """Returns the labels renumbered in the order in which classes first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
