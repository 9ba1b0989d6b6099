"""ALIGNN: atomistic line graph neural network (Choudhary & DeCost, npj Comput. Mater. 7, 185)."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.batch import CrystalBatch
from jaxmat.models.elements import ElementFeatures
from jaxmat.models.layers import Embedding, GatedGraphConv, Linear, WeightedEdges, radial_basis
from jaxmat.models.trunk import Groups, Trunk, mean_over_atoms, mean_over_bonds


class ALIGNN(Trunk):
    """The published network.

    Bonds exchange messages over angles (edge_update, on the line graph) and atoms over bonds
    (node_update); then gated convolutions on the bonds alone; then the mean over atoms.

    Where all neighbours of an atom carry the same numbers the gates cancel. So in a crystal of one
    element atoms never learn of the geometry, and all polymorphs get one answer, unless the bonds
    are pooled as well.

    Attributes:
        embedding_width: hidden width of the bond and angle embeddings.
        alignn_layers: layers with angles.
        gcn_layers: layers without.
        bond_bins: radial basis functions of the length, 0 to 8 Å.
        angle_bins: radial basis functions of the cosine, -1 to 1.
        pool_bonds: add what a linear map makes of the mean over bonds to the mean over atoms;
            the published network does not.
    """

    needs_angles: ClassVar[bool] = True

    width: int = 256
    embedding_width: int = 64
    alignn_layers: int = 4
    gcn_layers: int = 4
    bond_bins: int = 80
    angle_bins: int = 40
    pool_bonds: bool = False

    def groups(self) -> Groups:
        """See Trunk."""
        layers = tuple(f"alignn_layers_{i}" for i in range(self.alignn_layers))
        convolutions = tuple(f"gcn_layers_{i}" for i in range(self.gcn_layers))
        learned = ("element_features",) if "embedding" in self.element_features else ()
        embedded = (f"{kind}_embedding_{i}" for kind in ("edge", "angle") for i in range(2))
        return Groups(
            embedding=("atom_embedding", *learned, *embedded),
            two_body=(*(f"{layer}/node_update" for layer in layers), *convolutions),
            three_body=tuple(f"{layer}/edge_update" for layer in layers),
            blocks=layers + convolutions,
            readout=("bond_readout",) if self.pool_bonds else (),
        )

    def tells_polymorphs_apart(self) -> bool:
        """See Trunk."""
        return self.pool_bonds

    @nn.compact
    def __call__(self, batch: CrystalBatch, train: bool) -> jax.Array:
        """See Trunk."""
        bonds = _weighted(batch.crystals, batch.crystals.nodes["count"])
        angles = _weighted(batch.angles, batch.crystals.edges["count"])
        length, cosine = batch.crystals.edges["length"], batch.angles.edges["cosine"]
        dtype = self.dtype or jnp.result_type(length)
        x = ElementFeatures(self.element_features, self.width, name="element_features")(
            batch.crystals.nodes["atomic_number"]
        )
        x = self._embedding(self.width, "atom_embedding")(x.astype(dtype), bonds.node_count, train)
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
        pooled = mean_over_atoms(x, batch)
        if self.pool_bonds:
            pooled += Linear(self.width, name="bond_readout")(mean_over_bonds(y, batch))
        return pooled

    def _embedding(self, features: int, name: str) -> Embedding:
        return Embedding(features, self.axis_name, name=name)

    def _embed_twice(self, rows: jax.Array, count: jax.Array, name: str, train: bool) -> jax.Array:
        rows = self._embedding(self.embedding_width, f"{name}_0")(rows, count, train)
        return self._embedding(self.width, f"{name}_1")(rows, count, train)


def published_decay_mask(params: Any) -> Any:
    """Which parameters the published runs decay: all but biases and bn_nodes, bn_edges.

    Their rule looks for "bias" and "bn" in torch's names. In an MLP layer the batch norm has no
    such name there, so that its scale (`norm/scale` here) is decayed.

    Args:
        params: parameter tree; of another trunk all but the biases decay.

    Returns:
        Tree of bools like the parameters, True where decayed.
    """
    norms = {"bn_nodes", "bn_edges"}
    return unflatten_dict(
        {name: name[-1] != "bias" and not norms & set(name) for name in flatten_dict(params)}
    )


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


def _weighted(graph: Any, node_count: jax.Array) -> WeightedEdges:
    """Returns the edges of a GraphsTuple whose nodes stand for so many sites or bonds each."""
    edges = graph.edges
    return WeightedEdges(
        graph.senders, graph.receivers, edges["multiplicity"], edges["count"], node_count
    )
