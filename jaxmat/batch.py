"""A padded batch of crystals as two jraph graphs; the one module that imports jraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jraph
import numpy as np

from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.crystals.graph import CrystalGraph, Joined, join

Array = jax.Array | np.ndarray


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

    @property
    def shape(self) -> Shape:
        """Its rows, of a part of it where it is stacked."""
        crystals, angles = self.crystals, self.angles
        rows = (self.crystal_mask, crystals.nodes["count"], crystals.edges["count"])
        return Shape(*(leaf.shape[-1] for leaf in (*rows, angles.edges["count"])))


def batch_crystals(
    graphs: Sequence[CrystalGraph] | Joined,
    target: np.ndarray,
    shape: Shape,
    dtype: np.dtype | type = np.float32,
) -> CrystalBatch:
    """Returns crystals padded to a shape.

    Args:
        graphs: at most shape.crystals - 1 crystals that together leave a site and a bond free;
            a device that the last batch has no crystal for gets none.
        target: scaled targets, NaN where missing, [crystals, properties].
        shape: rows of the batch.
        dtype: of features, weights and targets.

    Raises:
        ValueError: the crystals do not fit.
    """
    rows, sizes = graphs if isinstance(graphs, Joined) else join(graphs)
    sites, bonds, angles = sizes.T
    total = sizes.sum(axis=0).tolist()
    needed = Shape(len(sizes) + 1, total[0] + 1, total[1] + 1, total[2])
    if any(rows > room for rows, room in zip(needed, shape, strict=True)):
        raise ValueError(f"crystals that need {needed} do not fit into {shape}")

    first_site, first_bond = _offsets(sites, bonds), _offsets(bonds, angles)
    bond_receiver = rows.bond_receiver + first_site
    angle_receiver = rows.angle_receiver + first_bond
    bond_count = rows.bond_multiplicity * rows.site_count[bond_receiver]
    angle_count = rows.angle_multiplicity * bond_count[angle_receiver]
    descriptors = rows.descriptors.reshape(len(sizes), COLUMNS)

    def weights(values: np.ndarray, rows: int) -> np.ndarray:
        return _padded(values, rows, 0, dtype)

    def indices(values: np.ndarray, rows: int, padding: int) -> np.ndarray:
        return _padded(values, rows, padding, np.int32)

    n_node = _padded_counts(sites, shape.crystals, shape.sites)
    n_edge = _padded_counts(bonds, shape.crystals, shape.bonds)
    n_angle = _padded_counts(angles, shape.crystals, shape.angles)
    crystals = jraph.GraphsTuple(
        nodes={
            "atomic_number": indices(rows.atomic_number, shape.sites, 0),
            "count": weights(rows.site_count, shape.sites),
        },
        edges={
            "length": weights(rows.bond_length, shape.bonds),
            "multiplicity": weights(rows.bond_multiplicity, shape.bonds),
            "count": weights(bond_count, shape.bonds),
        },
        senders=indices(rows.bond_sender + first_site, shape.bonds, needed.sites - 1),
        receivers=indices(bond_receiver, shape.bonds, needed.sites - 1),
        n_node=n_node,
        n_edge=n_edge,
        globals={"descriptors": weights(descriptors, shape.crystals)},
    )
    line_graph = jraph.GraphsTuple(
        nodes=None,
        edges={
            "cosine": weights(rows.angle_cosine, shape.angles),
            "multiplicity": weights(rows.angle_multiplicity, shape.angles),
            "count": weights(angle_count, shape.angles),
        },
        senders=indices(rows.angle_sender + first_bond, shape.angles, needed.bonds - 1),
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
        crystal_mask=_padded(np.ones(len(sizes)), shape.crystals, 0, dtype),
    )


def _offsets(nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns what to add to the node indices of each edge of a disjoint union, int32 [edges]."""
    return np.repeat((np.cumsum(nodes) - nodes).astype(np.int32), edges)


def _padded(values: np.ndarray, rows: int, padding: int, dtype: np.dtype | type) -> np.ndarray:
    result = np.empty((rows, *values.shape[1:]), dtype)
    result[: len(values)] = values
    result[len(values) :] = padding
    return result


def _padded_counts(counts: np.ndarray, crystals: int, rows: int) -> np.ndarray:
    """Returns rows of each crystal; the last one, which is padding, has what is left over."""
    result = _padded(counts, crystals, 0, np.int32)
    result[-1] = rows - counts.sum()
    return result
