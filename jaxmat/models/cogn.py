"""A network on bonds alone, after coGN (Ruff et al., Digital Discovery 3, 594 (2024))."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmat.batch import CrystalBatch
from jaxmat.models.elements import ElementFeatures
from jaxmat.models.layers import Linear, receive, take
from jaxmat.models.trunk import Groups, Trunk, mean_over_atoms


class CoGN(Trunk):
    """The trunk: no angles and no batch norm; bonds keep a state that every layer adds to.

    A site takes the mean of its bonds' states as they are, without gates, so that it learns of
    lengths also where all its neighbours are alike.

    Attributes:
        layers: of message passing.
        bond_bins: Gaussians of the length.
        bond_range: Å, where the last of them lies, the first at 0.
        sum_bonds: take the sum of a site's bonds over the square root of 12 instead of the mean.
        layer_norm: normalise what enters each block, by itself.
    """

    element_features: str = "properties"
    layers: int = 5
    bond_bins: int = 32
    bond_range: float = 12.0
    sum_bonds: bool = False
    layer_norm: bool = False

    def groups(self) -> Groups:
        """See Trunk."""
        blocks = tuple(f"layers_{i}" for i in range(self.layers))
        learned = ("element_features",) if "embedding" in self.element_features else ()
        return Groups(
            embedding=("atom_embedding", *learned, "bond_embedding"),
            two_body=blocks,
            blocks=blocks,
            readout=("readout",),
        )

    @nn.compact
    def __call__(self, batch: CrystalBatch, train: bool) -> jax.Array:
        """See Trunk."""
        length = batch.crystals.edges["length"]
        dtype = self.dtype or jnp.result_type(length)
        x = ElementFeatures(self.element_features, self.width, name="element_features")(
            batch.crystals.nodes["atomic_number"]
        ).astype(dtype)
        x = nn.silu(Linear(self.width, name="atom_embedding")(x))
        e = gaussians(length, self.bond_range, self.bond_bins).astype(dtype)
        e = nn.silu(Linear(self.width, name="bond_embedding")(e))
        block = nn.remat(BondBlock) if self.remat else BondBlock
        for i in range(self.layers):
            layer = block(self.width, self.sum_bonds, self.layer_norm, name=f"layers_{i}")
            x, e = layer(x, e, batch)
        x = nn.silu(Linear(self.width, name="readout")(x))
        return mean_over_atoms(x, batch)


class BondBlock(nn.Module):
    """Bonds are updated from their ends, then sites from their bonds.

    Attributes:
        width: features of sites and bonds.
        sum_bonds: see CoGN.
        layer_norm: see CoGN.
    """

    width: int
    sum_bonds: bool
    layer_norm: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, e: jax.Array, batch: CrystalBatch
    ) -> tuple[jax.Array, jax.Array]:
        """Returns updated sites [sites, width] and bonds [bonds, width]."""
        graph = batch.crystals
        site, bond = x, e
        if self.layer_norm:
            # Of the type of its weights, which are float32 where the rows are not.
            site = nn.LayerNorm(name="site_norm")(x).astype(x.dtype)
            bond = nn.LayerNorm(name="bond_norm")(e).astype(e.dtype)
        weight = graph.edges["multiplicity"]
        message = (
            take(Linear(self.width, name="sender")(site), graph.senders, weight)
            + take(
                Linear(self.width, name="receiver")(site), graph.receivers, weight, is_sorted=True
            )
            + Linear(self.width, name="bond")(bond)
        )
        for i in range(2):
            message = Linear(self.width, name=f"bond_{i}")(nn.silu(message))
        e = e + nn.silu(message)
        multiplicity = weight[:, None]
        total = receive(e * multiplicity, graph.receivers, len(x))
        number = receive(multiplicity, graph.receivers, len(x))
        received = total * 12**-0.5 if self.sum_bonds else total / jnp.maximum(number, 1)
        update = jnp.concatenate([site, received.astype(x.dtype)], axis=-1)
        update = nn.silu(Linear(self.width, name="site_0")(update))
        return x + Linear(self.width, name="site_1")(update), e


def gaussians(length: jax.Array, reach: float, number: int) -> jax.Array:
    """Returns exp(-((length - center) / spacing)²/2) for evenly spaced centers, [bonds, number].

    Args:
        length: Å, [bonds].
        reach: Å, the last center; the first is 0.
        number: of centers.
    """
    centers = jnp.linspace(0.0, reach, number, dtype=length.dtype)
    return jnp.exp(-0.5 * jnp.square((length[:, None] - centers) * ((number - 1) / reach)))
