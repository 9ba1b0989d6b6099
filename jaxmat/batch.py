"""A padded batch of crystals as two jraph graphs; the one module that imports jraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jraph
import numpy as np

from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.crystals.graph import CrystalGraph

Array = jax.Array | np.ndarray


# What a device works on where a batch has no crystal for it.
_NONE = CrystalGraph(*[np.zeros(0, np.int32)] * len(CrystalGraph._fields))


class Shape(NamedTuple):
    """Rows of a padded batch; its last crystal, site and bond are padding.

    Attributes:
        crystals: number of crystals.
        sites: number of site classes.
        bonds: number of bond classes.
        angles: number of angle classes.
    """

    crystals: int
    sites: int
    bonds: int
    angles: int


class CrystalBatch(NamedTuple):
    """Crystals, padded to a fixed shape. Padding rows have count and multiplicity zero.

    Attributes:
        crystals: nodes are sites {"atomic_number" int32, "count"} [sites]; edges are bonds
            {"length" in Å, "multiplicity", "count"} [bonds], sorted by receiver; globals are
            {"descriptors"} [crystals, columns], see `jaxmat.crystals.descriptors`.
        angles: the line graph. Its nodes are the bonds (no features of their own); its edges are
            angles {"cosine", "multiplicity", "count"} [angles], sorted by receiver.
        target: scaled targets, 0 where missing, [crystals, properties].
        target_mask: 1 where there is a label, 0 where it is missing or padding,
            [crystals, properties].
        crystal_mask: 1 for a crystal, 0 for padding, [crystals].
    """

    crystals: jraph.GraphsTuple
    angles: jraph.GraphsTuple
    target: Array
    target_mask: Array
    crystal_mask: Array


def batch_crystals(
    graphs: Sequence[CrystalGraph],
    target: np.ndarray,
    shape: Shape,
    dtype: np.dtype | type = np.float32,
) -> CrystalBatch:
    """Returns crystals padded to a shape.

    Args:
        graphs: at most shape.crystals - 1 crystals that together leave a site and a bond free;
            a device that the last batch has no crystal for gets none.
        target: scaled targets, NaN where missing, [len(graphs), properties].
        shape: rows of the batch.
        dtype: of features, weights and targets.

    Raises:
        ValueError: the crystals do not fit.
    """
    union = CrystalGraph(*(np.concatenate(rows) for rows in zip(_NONE, *graphs, strict=True)))
    sites = np.array([len(graph.atomic_number) for graph in graphs], int)
    bonds = np.array([len(graph.bond_length) for graph in graphs], int)
    angles = np.array([len(graph.angle_cosine) for graph in graphs], int)
    needed = Shape(len(graphs) + 1, sites.sum() + 1, bonds.sum() + 1, angles.sum())
    if any(rows > room for rows, room in zip(needed, shape, strict=True)):
        raise ValueError(f"crystals that need {needed} do not fit into {shape}")

    bond_offset, angle_offset = _offsets(sites, bonds), _offsets(bonds, angles)
    bond_receiver = union.bond_receiver + bond_offset
    angle_receiver = union.angle_receiver + angle_offset
    bond_count = union.bond_multiplicity * union.site_count[bond_receiver]
    angle_count = union.angle_multiplicity * bond_count[angle_receiver]
    descriptors = union.descriptors.reshape(len(graphs), COLUMNS)

    def weights(values: np.ndarray, rows: int) -> np.ndarray:
        return _padded(values, rows, 0, dtype)

    def indices(values: np.ndarray, rows: int, padding: int) -> np.ndarray:
        return _padded(values, rows, padding, np.int32)

    n_node = _padded_counts(sites, shape.crystals, shape.sites)
    n_edge = _padded_counts(bonds, shape.crystals, shape.bonds)
    n_angle = _padded_counts(angles, shape.crystals, shape.angles)
    crystals = jraph.GraphsTuple(
        nodes={
            "atomic_number": indices(union.atomic_number, shape.sites, 0),
            "count": weights(union.site_count, shape.sites),
        },
        edges={
            "length": weights(union.bond_length, shape.bonds),
            "multiplicity": weights(union.bond_multiplicity, shape.bonds),
            "count": weights(bond_count, shape.bonds),
        },
        senders=indices(union.bond_sender + bond_offset, shape.bonds, needed.sites - 1),
        receivers=indices(bond_receiver, shape.bonds, needed.sites - 1),
        n_node=n_node,
        n_edge=n_edge,
        globals={"descriptors": weights(descriptors, shape.crystals)},
    )
    line_graph = jraph.GraphsTuple(
        nodes=None,
        edges={
            "cosine": weights(union.angle_cosine, shape.angles),
            "multiplicity": weights(union.angle_multiplicity, shape.angles),
            "count": weights(angle_count, shape.angles),
        },
        senders=indices(union.angle_sender + angle_offset, shape.angles, needed.bonds - 1),
        receivers=indices(angle_receiver, shape.angles, needed.bonds - 1),
        n_node=n_edge,
        n_edge=n_angle,
        globals=None,
    )
    present = np.isfinite(target)
    return CrystalBatch(
        crystals=crystals,
        angles=line_graph,
        target=_padded(np.where(present, target, 0), shape.crystals, 0, dtype),
        target_mask=_padded(present, shape.crystals, 0, dtype),
        crystal_mask=_padded(np.ones(len(graphs)), shape.crystals, 0, dtype),
    )


def _offsets(nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns what to add to the node indices of each edge of a disjoint union, [edges]."""
    return np.repeat(np.cumsum(nodes) - nodes, edges)


def _padded(values: np.ndarray, rows: int, padding: int, dtype: np.dtype | type) -> np.ndarray:
    result = np.full((rows, *values.shape[1:]), padding, dtype)
    result[: len(values)] = values
    return result


def _padded_counts(counts: np.ndarray, crystals: int, rows: int) -> np.ndarray:
    """Returns rows of each crystal; the last one, which is padding, has what is left over."""
    result = _padded(counts, crystals, 0, np.int32)
    result[-1] = rows - counts.sum()
    return result
