"""Crystal → CrystalGraph: one weighted row for each class of sites, bonds and angles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Structure

from jaxmat.crystals.compression import Classes, PlainGraph, find_classes
from jaxmat.crystals.content import Content
from jaxmat.crystals.descriptors import COLUMNS, BondClasses, SiteClasses, describe_crystals
from jaxmat.crystals.neighbors import MAX_CUTOFF, Bonds, all_complete_shells, reference_shells
from jaxmat.errors import UserError, listed
from jaxmat.values import Allowed, flag, one_of, problems, real, unknown, whole

# Sites that share a vectorised pass: enough to hide numpy's overhead, few enough for the cache.
_PASS_SITES = 500
# Coordinates come with six decimals; rows are told apart by far fewer digits than a float has.
_LEAST_TOLERANCE = 1e-6

# What the fields of GraphSettings may be; configs, models and stores are held against it.
GRAPH_VALUES: Mapping[str, Allowed] = {
    "neighbor_rule": one_of("complete_shells", "reference"),
    "max_neighbors": whole(1, 100),
    "tie_tolerance": real(0, 1),
    "cutoff": real(above=0, most=MAX_CUTOFF),
    "max_cutoff": real(above=0, most=MAX_CUTOFF),
    "canonical": flag(),
    "compress": flag(),
    # To keep every row apart, there is compress=False.
    "tolerance": real(_LEAST_TOLERANCE, 0.1),
    "angles": flag(),
}


@dataclass(frozen=True)
class GraphSettings:
    """How a crystal becomes a graph; travels with every checkpoint.

    Attributes:
        neighbor_rule: "complete_shells", or "reference" for the published graphs.
        max_neighbors: neighbours that a shell holds.
        tie_tolerance: Å; neighbours this much beyond the last one belong to its shell
            (complete_shells).
        cutoff: Å; the published search radius (reference).
        max_cutoff: Å; what lies farther is no neighbour, so that a shell may hold fewer than
            max_neighbors, or none.
        canonical: whether the two findings of a bond are merged (reference): True in the published
            single-property models, False in the multi-property ones.
        compress: keep one of each class of equivalent rows, with counts.
        tolerance: greatest difference of lengths (Å) or cosines within a class.
        angles: whether there are any; a network that needs none is trained on graphs without.
    """

    neighbor_rule: str = "complete_shells"
    max_neighbors: int = 12
    tie_tolerance: float = 0.01
    cutoff: float = 8.0
    max_cutoff: float = MAX_CUTOFF
    canonical: bool = True
    compress: bool = True
    tolerance: float = 1e-3
    angles: bool = True

    def __post_init__(self) -> None:
        if wrong := problems("graph.", asdict(self), GRAPH_VALUES):
            raise UserError(f"There are no such graphs:\n{listed(wrong)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphSettings:
        """Makes settings from `to_dict`; a field that is missing, as in old files, has its default.

        Raises:
            UserError: fields are unknown or of values that are not allowed.
        """
        if wrong := [
            unknown("graph.", name, GRAPH_VALUES) for name in values.keys() - GRAPH_VALUES.keys()
        ]:
            raise UserError(f"There are no such graphs:\n{listed(sorted(wrong))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        return asdict(self)


class CrystalGraph(NamedTuple):
    """One crystal as weighted classes; with every count one it is the plain graph.

    Attributes:
        atomic_number: int32 [sites].
        site_count: sites of the class, int32 [sites].
        bond_sender, bond_receiver: site classes, int32 [bonds], sorted by receiver.
        bond_length: Å, float64 [bonds].
        bond_multiplicity: bonds of the class that end at one site of its receiver, int32 [bonds].
        angle_sender, angle_receiver: bond classes, int32 [angles], sorted by receiver.
        angle_cosine: float64 [angles].
        angle_multiplicity: angles of the class that end at one bond of its receiver,
            int32 [angles].
        descriptors: see `jaxmat.crystals.descriptors`, float64 [columns]; zeros in a graph that
            was not made from a structure.
    """

    atomic_number: np.ndarray
    site_count: np.ndarray
    bond_sender: np.ndarray
    bond_receiver: np.ndarray
    bond_length: np.ndarray
    bond_multiplicity: np.ndarray
    angle_sender: np.ndarray
    angle_receiver: np.ndarray
    angle_cosine: np.ndarray
    angle_multiplicity: np.ndarray
    descriptors: np.ndarray = np.zeros(COLUMNS)


_NONE = CrystalGraph(*[np.zeros(0, np.int32)] * len(CrystalGraph._fields))


class Joined(NamedTuple):
    """Crystals one after the other; every row keeps the numbers that it has within its crystal.

    Attributes:
        rows: of all crystals.
        sizes: sites, bonds and angles of each crystal, [crystals, 3].
    """

    rows: CrystalGraph
    sizes: np.ndarray


def join(graphs: Sequence[CrystalGraph]) -> Joined:
    """Returns crystals one after the other; there may be none."""
    rows = CrystalGraph(*(np.concatenate(parts) for parts in zip(_NONE, *graphs, strict=True)))
    return Joined(rows, sizes_of(graphs))


def sizes_of(graphs: Sequence[CrystalGraph]) -> np.ndarray:
    """Returns sites, bonds and angles of each graph, [graphs, 3]."""
    return np.array(
        [(len(g.atomic_number), len(g.bond_length), len(g.angle_cosine)) for g in graphs], np.int64
    ).reshape(-1, 3)


def build_graph(crystal: Content | Structure, settings: GraphSettings) -> CrystalGraph:
    """Returns the graph of one crystal."""
    return next(build_graphs([crystal], settings))


def build_graphs(
    crystals: Iterable[Content | Structure], settings: GraphSettings
) -> Iterator[CrystalGraph]:
    """Yields the graphs of crystals, in order; angles and classes of many are found in one pass."""
    for chunk in chunks(map(Content.of, crystals), _PASS_SITES):
        numbers = [crystal.atomic_number.astype(np.int64) for crystal in chunk]
        bonds = _find_bonds(chunk, settings)
        selves = settings.neighbor_rule != "reference"
        graph = plain_graph(numbers, bonds, selves, settings.angles)
        classes = (
            find_classes(graph, settings.tolerance) if settings.compress else _all_apart(graph)
        )
        volumes = np.abs(np.linalg.det(np.array([crystal.lattice for crystal in chunk])))
        yield from _split(graph, classes, volumes, settings.max_cutoff)


def chunks(crystals: Iterable[Content], most: int) -> Iterator[list[Content]]:
    """Yields consecutive crystals with at most so many sites together, or one with more."""
    chunk: list[Content] = []
    sites = 0
    for crystal in crystals:
        own = len(crystal.atomic_number)
        if chunk and sites + own > most:
            yield chunk
            chunk, sites = [], 0
        chunk.append(crystal)
        sites += own
    if chunk:
        yield chunk


def _find_bonds(crystals: Sequence[Content], settings: GraphSettings) -> list[Bonds]:
    if settings.neighbor_rule == "reference":
        return [
            reference_shells(
                crystal,
                settings.max_neighbors,
                settings.cutoff,
                settings.canonical,
                settings.max_cutoff,
            )
            for crystal in crystals
        ]
    return all_complete_shells(
        crystals, settings.max_neighbors, settings.tie_tolerance, settings.max_cutoff
    )


def plain_graph(
    numbers: Sequence[np.ndarray],
    bonds: Sequence[Bonds],
    line_graph_selves: bool,
    angles: bool = True,
) -> PlainGraph:
    """Returns the disjoint union of crystals.

    Args:
        numbers: atomic numbers of each crystal.
        bonds: bonds of each crystal.
        line_graph_selves: whether a bond from a site to its own image makes an angle with its
            continuation into the next cell (the reference leaves these out).
        angles: whether to find angles, all there are, or none.
    """
    sites = [len(number) for number in numbers]
    offset = np.repeat(np.cumsum(sites) - sites, [len(bond.sender) for bond in bonds])
    sender = np.concatenate([bond.sender for bond in bonds]) + offset
    receiver = np.concatenate([bond.receiver for bond in bonds]) + offset
    vector = np.concatenate([bond.vector for bond in bonds])
    length = np.sqrt(np.sum(vector**2, axis=1))
    first = second = np.zeros(0, dtype=np.int64)
    if angles:
        first, second = _consecutive(sender, receiver, sum(sites))
    if not line_graph_selves:
        first, second = first[first != second], second[first != second]
    x, y, z = (vector / length[:, None]).T.copy()
    cosine = -(x[first] * x[second] + y[first] * y[second] + z[first] * z[second])
    return PlainGraph(
        site_crystal=np.repeat(np.arange(len(sites)), sites),
        atomic_number=np.concatenate(numbers),
        bond_sender=sender,
        bond_receiver=receiver,
        bond_length=length,
        angle_sender=first,
        angle_receiver=second,
        angle_cosine=np.clip(cosine, -1, 1),
    )


def _consecutive(
    sender: np.ndarray, receiver: np.ndarray, sites: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all pairs of bonds of which the second starts where the first ends."""
    incoming = np.bincount(receiver, minlength=sites)
    first_incoming = np.cumsum(incoming) - incoming
    pairs = incoming[sender]
    second = np.repeat(np.arange(len(sender)), pairs)
    within = np.arange(len(second)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    return np.repeat(first_incoming[sender], pairs) + within, second


def _all_apart(graph: PlainGraph) -> Classes:
    return Classes(*(np.arange(len(x)) for x in (graph[0], graph.bond_sender, graph.angle_sender)))


def _split(
    graph: PlainGraph, classes: Classes, volumes: np.ndarray, alone: float
) -> Iterator[CrystalGraph]:
    """Yields the crystals of a union as classes with counts, and with their descriptors."""
    crystals = len(volumes)
    site, site_count = _members(classes.site)
    bond, bond_count = _members(classes.bond)
    angle, angle_count = _members(classes.angle)
    bond_receiver = classes.site[graph.bond_receiver[bond]]
    angle_receiver = classes.bond[graph.angle_receiver[angle]]
    site_crystal = graph.site_crystal[site]
    bond_crystal = site_crystal[bond_receiver]
    sites = np.searchsorted(site_crystal, np.arange(crystals + 1))
    bonds = np.searchsorted(bond_crystal, np.arange(crystals + 1))
    angles = np.searchsorted(bond_crystal[angle_receiver], np.arange(crystals + 1))
    union = CrystalGraph(
        atomic_number=graph.atomic_number[site].astype(np.int32),
        site_count=site_count.astype(np.int32),
        bond_sender=classes.site[graph.bond_sender[bond]].astype(np.int32),
        bond_receiver=bond_receiver.astype(np.int32),
        bond_length=np.bincount(classes.bond, weights=graph.bond_length) / bond_count,
        bond_multiplicity=(bond_count // site_count[bond_receiver]).astype(np.int32),
        angle_sender=classes.bond[graph.angle_sender[angle]].astype(np.int32),
        angle_receiver=angle_receiver.astype(np.int32),
        angle_cosine=np.bincount(classes.angle, weights=graph.angle_cosine) / angle_count,
        angle_multiplicity=(angle_count // bond_count[angle_receiver]).astype(np.int32),
    )
    descriptors = describe_crystals(
        SiteClasses(site_crystal, union.atomic_number, union.site_count),
        BondClasses(*union[2:6]),
        volumes,
        alone,
    )
    for i in range(crystals):
        s, b, a = (slice(ends[i], ends[i + 1]) for ends in (sites, bonds, angles))
        yield CrystalGraph._make(
            [
                *(x[s] for x in union[:2]),
                *(x[b] - np.int32(sites[i]) for x in union[2:4]),
                *(x[b] for x in union[4:6]),
                *(x[a] - np.int32(bonds[i]) for x in union[6:8]),
                *(x[a] for x in union[8:10]),
                descriptors[i],
            ]
        )


def _members(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first member and the size of each class."""
    count = np.bincount(labels)
    first = np.empty(len(count), dtype=np.int64)
    first[labels[::-1]] = np.arange(len(labels))[::-1]  # the last to be written is the first member
    return first, count
