"""The contract of a trunk: what every network between crystals and heads is given and tells.

A trunk is a flax module that derives from `Trunk` and stands in `jaxmat.models.network.TRUNKS`.
Its dataclass fields are its options, each with a default and of a plain type, as they stand in
configs and checkpoints. All else that the library knows of it is what this module names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxmat.batch import CrystalBatch
from jaxmat.errors import UserError

# Fields of every trunk that say how it is computed, not what it is.
COMPUTATION = ("axis_name", "dtype", "remat")


@dataclass(frozen=True)
class Groups:
    """Names of the parts of a trunk's parameters, such as "layers_0" or "layers_0/node_update".

    Each parameter lies in one part of `embedding`, `two_body`, `three_body` or `readout`.

    Attributes:
        embedding: what turns elements, lengths and cosines into vectors; that of the atoms first.
        two_body: what passes messages between atoms over bonds.
        three_body: what passes messages between bonds over angles; none without angles.
        readout: what makes the crystal's vector of those of its atoms and bonds.
        blocks: the layers in their order, each one part or several that begin with its name.
    """

    embedding: tuple[str, ...] = ()
    two_body: tuple[str, ...] = ()
    three_body: tuple[str, ...] = ()
    readout: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    def patterns(self, group: str) -> tuple[str, ...]:
        """Returns regular expressions for the beginnings of the names of a group's parameters.

        Args:
            group: a field of this class, or "trunk" for all, "atom_embedding" for the embedding
                of the atoms, "first_blocks" and "last_blocks" for the halves of the blocks (the
                middle one of an odd number is among the first).

        Returns:
            The expressions, none where the trunk has no such parameters.

        Raises:
            UserError: there is no such group.
        """
        middle = (len(self.blocks) + 1) // 2
        parts = {
            "embedding": self.embedding,
            "atom_embedding": self.embedding[:1],
            "two_body": self.two_body,
            "three_body": self.three_body,
            "readout": self.readout,
            "blocks": self.blocks,
            "first_blocks": self.blocks[:middle],
            "last_blocks": self.blocks[middle:],
        }
        if group == "trunk":
            return ("trunk/",)
        if group not in parts:
            raise UserError(f"Group {group!r} is unknown; use one of {', '.join(parts)}, trunk.")
        return tuple(f"trunk/{re.escape(part)}(/|$)" for part in parts[group])

    def present(self) -> dict[str, tuple[str, ...]]:
        """Returns the groups that share out the parameters, those with any, and their patterns."""
        names = ("embedding", "two_body", "three_body", "readout")
        return {name: self.patterns(name) for name in names if self.patterns(name)}


class Trunk(nn.Module):
    """A batch of weighted graphs to one vector for each crystal.

    Attributes:
        width: of the vectors.
        element_features: what the atoms start from: "table", "properties" and "embedding", or
            several of them joined by "+", see `jaxmat.models.elements`.
        axis_name: device axis over which batch statistics are taken, if any.
        dtype: of activations and matrix products, or None for that of the batch; batch
            statistics, sums over neighbours and means over atoms have that of the batch.
        remat: compute the inside of each block again in the backward pass instead of keeping it.
    """

    needs_angles: ClassVar[bool] = False

    width: int = 128
    element_features: str = "table"
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    remat: bool = False

    def groups(self) -> Groups:
        """Returns the names of the parts of the parameters that these options make."""
        raise NotImplementedError

    def tells_polymorphs_apart(self) -> bool:
        """Returns whether crystals of one element have vectors that depend on the geometry."""
        return True

    def __call__(self, batch: CrystalBatch, train: bool) -> jax.Array:
        """Returns pooled vectors, [crystals, width], zero for padding.

        Args:
            batch: without angles unless `needs_angles`.
            train: whether batch norms use, and record, the statistics of the batch.
        """
        raise NotImplementedError


def mean_over_atoms(x: jax.Array, batch: CrystalBatch) -> jax.Array:
    """Returns the mean of atom vectors [sites, width] for each crystal, zero for padding."""
    return _mean(x, batch.crystals.nodes["count"], batch.crystals.n_node)


def mean_over_bonds(y: jax.Array, batch: CrystalBatch) -> jax.Array:
    """Returns the mean of bond vectors [bonds, width] for each crystal, zero without bonds."""
    return _mean(y, batch.crystals.edges["count"], batch.crystals.n_edge)


def _mean(rows: jax.Array, count: jax.Array, per_crystal: jax.Array) -> jax.Array:
    crystals = len(per_crystal)
    crystal = jnp.repeat(jnp.arange(crystals), per_crystal, total_repeat_length=len(count))
    total = jax.ops.segment_sum(rows * count[:, None], crystal, crystals, indices_are_sorted=True)
    number = jax.ops.segment_sum(count, crystal, crystals, indices_are_sorted=True)
    return total / jnp.maximum(number, 1)[:, None]
