"""ALIGNN: atomistic line graph neural network (Choudhary & DeCost, npj Comput. Mater. 7, 185)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxmat.batch import CrystalBatch
from jaxmat.crystals.elements import atom_features
from jaxmat.models.layers import Embedding, GatedGraphConv, WeightedEdges, radial_basis


class ALIGNN(nn.Module):
    """The trunk: a batch of crystals to one vector for each.

    Bonds exchange messages over angles (edge_update, on the line graph) and atoms over bonds
    (node_update); then gated convolutions on the bonds alone; then the mean over atoms.

    Attributes:
        width: features of atoms, bonds and angles.
        embedding_width: hidden width of the bond and angle embeddings.
        alignn_layers: layers with angles.
        gcn_layers: layers without.
        bond_bins: radial basis functions of the length, 0 to 8 Å.
        angle_bins: radial basis functions of the cosine, -1 to 1.
        axis_name: device axis over which batch statistics are taken, if any.
        dtype: of activations and matrix products, or None for that of the batch; batch
            statistics, sums over neighbours and the mean over atoms have that of the batch.
        remat: compute the inside of each layer again in the backward pass instead of keeping it.
    """

    width: int = 256
    embedding_width: int = 64
    alignn_layers: int = 4
    gcn_layers: int = 4
    bond_bins: int = 80
    angle_bins: int = 40
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, batch: CrystalBatch, train: bool) -> jax.Array:
        """Returns pooled vectors, [crystals, width]."""
        bonds, angles = _bond_graph(batch), _angle_graph(batch)
        length, cosine = batch.crystals.edges["length"], batch.angles.edges["cosine"]
        dtype = self.dtype or jnp.result_type(length)
        x = jnp.asarray(atom_features(), dtype)[batch.crystals.nodes["atomic_number"]]
        x = self._embedding(self.width, "atom_embedding")(x, bonds.node_count, train)
        y = radial_basis(length, 0.0, 8.0, self.bond_bins).astype(dtype)
        y = self._embed_twice(y, bonds.edge_count, "edge_embedding", train)
        z = radial_basis(cosine, -1.0, 1.0, self.angle_bins).astype(dtype)
        z = self._embed_twice(z, angles.edge_count, "angle_embedding", train)
        alignn_layer, gcn_layer = ALIGNNLayer, GatedGraphConv
        if self.remat:  # `train`, the last argument counted from self, is static
            alignn_layer = nn.remat(ALIGNNLayer, static_argnums=6)
            gcn_layer = nn.remat(GatedGraphConv, static_argnums=4)
        for i in range(self.alignn_layers):
            layer = alignn_layer(self.width, self.axis_name, name=f"alignn_layers_{i}")
            x, y, z = layer(x, y, z, bonds, angles, train)
        for i in range(self.gcn_layers):
            convolution = gcn_layer(self.width, self.axis_name, name=f"gcn_layers_{i}")
            x, y = convolution(x, y, bonds, train)
        return mean_over_atoms(x, batch)

    def _embedding(self, features: int, name: str) -> Embedding:
        return Embedding(features, self.axis_name, name=name)

    def _embed_twice(self, rows: jax.Array, count: jax.Array, name: str, train: bool) -> jax.Array:
        rows = self._embedding(self.embedding_width, f"{name}_0")(rows, count, train)
        return self._embedding(self.width, f"{name}_1")(rows, count, train)


class ALIGNNLayer(nn.Module):
    """Atoms are updated over bonds, then bonds over angles.

    Attributes:
        width: features of atoms, bonds and angles.
        axis_name: see ALIGNN.
    """

    width: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        y: jax.Array,
        z: jax.Array,
        bonds: WeightedEdges,
        angles: WeightedEdges,
        train: bool,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns updated atoms [sites, width], bonds [bonds, width] and angles [angles, width]."""
        convolution = GatedGraphConv(self.width, self.axis_name, name="node_update")
        x, message = convolution(x, y, bonds, train)
        convolution = GatedGraphConv(self.width, self.axis_name, name="edge_update")
        y, z = convolution(message, z, angles, train)
        return x, y, z


def _bond_graph(batch: CrystalBatch) -> WeightedEdges:
    graph = batch.crystals
    return WeightedEdges(
        graph.senders,
        graph.receivers,
        graph.edges["multiplicity"],
        graph.edges["count"],
        graph.nodes["count"],
    )


def _angle_graph(batch: CrystalBatch) -> WeightedEdges:
    graph = batch.angles
    return WeightedEdges(
        graph.senders,
        graph.receivers,
        graph.edges["multiplicity"],
        graph.edges["count"],
        batch.crystals.edges["count"],
    )


def mean_over_atoms(x: jax.Array, batch: CrystalBatch) -> jax.Array:
    """Returns the mean of atom vectors [sites, width] for each crystal, zero for padding."""
    count, crystals = batch.crystals.nodes["count"], len(batch.crystal_mask)
    crystal = jnp.repeat(
        jnp.arange(crystals), batch.crystals.n_node, total_repeat_length=len(count)
    )
    total = jax.ops.segment_sum(x * count[:, None], crystal, crystals, indices_are_sorted=True)
    atoms = jax.ops.segment_sum(count, crystal, crystals, indices_are_sorted=True)
    return total / jnp.maximum(atoms, 1)[:, None]
