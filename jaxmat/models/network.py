"""A network is a trunk from the registry plus one named head for each property."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmat.batch import CrystalBatch
from jaxmat.errors import UserError
from jaxmat.models.alignn import ALIGNN
from jaxmat.models.heads import make_head

TRUNKS = {"alignn": ALIGNN}
Options = Mapping[str, Any]


class CrystalNetwork(nn.Module):
    """Predicts the scaled value of each head's property for each crystal.

    Attributes:
        trunk_options: {"kind": name in TRUNKS, option: value, ...}.
        head_options: property → {"kind": ..., option: value, ...}; the order is that of the
            columns of the prediction.
        axis_name: device axis over which batch statistics are taken, if any.
    """

    trunk_options: Options
    head_options: Mapping[str, Options]
    axis_name: str | None = None

    def setup(self) -> None:
        """Names the parts: trunk, heads_<property>."""
        options = dict(self.trunk_options)
        self.trunk = TRUNKS[options.pop("kind")](**options, axis_name=self.axis_name)
        self.heads = {
            name: make_head(options, name=f"heads_{name}")
            for name, options in self.head_options.items()
        }

    def __call__(self, batch: CrystalBatch, train: bool = False) -> jax.Array:
        """Returns scaled predictions, [crystals, properties]."""
        pooled = self.embed(batch, train)
        return jnp.concatenate([head(pooled) for head in self.heads.values()], axis=-1)

    def embed(self, batch: CrystalBatch, train: bool = False) -> jax.Array:
        """Returns pooled vectors, [crystals, width]."""
        return self.trunk(batch, train)


def build_network(trunk: Options, heads: Mapping[str, Options]) -> CrystalNetwork:
    """Returns the network described by plain values, as they stand in configs and checkpoints.

    Args:
        trunk: {"kind": "alignn", option: value, ...}; options left out keep their defaults.
        heads: property → {"kind": "linear" | "linear_pair" | "mlp", option: value, ...}.

    Raises:
        UserError: an unknown trunk, head or option, or a property name that cannot name a
            parameter.
    """
    kind = trunk.get("kind")
    if kind not in TRUNKS:
        raise UserError(f"Trunk {kind!r} is unknown; use one of {', '.join(TRUNKS)}.")
    fields = {field.name for field in dataclasses.fields(TRUNKS[kind])}
    known = fields - {"axis_name", "parent", "name"}
    if unknown := set(trunk) - known - {"kind"}:
        raise UserError(
            f"Trunk {kind!r} has no option {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}."
        )
    if not heads:
        raise UserError("A network needs at least one head.")
    for name in heads:
        if not re.fullmatch(r"\w+", name):
            raise UserError(
                f"Property name {name!r} cannot name a head: use letters, digits and underscores."
            )
        make_head(heads[name], name=name)
    return CrystalNetwork(dict(trunk), {name: dict(heads[name]) for name in heads})
