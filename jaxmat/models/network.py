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
from jaxmat.models.options import check_options

TRUNKS = {"alignn": ALIGNN}
# As jax.default_matmul_precision knows them; with the last one activations have that type, too.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
Options = Mapping[str, Any]

# Fields of trunks that say how they are computed, not what they are.
_COMPUTATION = {"axis_name", "dtype", "remat"}


class CrystalNetwork(nn.Module):
    """Predicts the scaled value of each head's property for each crystal.

    `trunk_options` and `head_options` are what the network is; the other fields are how it is
    computed, and change nothing about its variables.

    Attributes:
        trunk_options: {"kind": name in TRUNKS, option: value, ...}.
        head_options: property → {"kind": ..., option: value, ...}; the order is that of the
            columns of the prediction.
        axis_name: device axis over which batch statistics are taken, if any.
        precision: of matrix products, one of PRECISIONS.
        remat: whether the trunk saves memory at the price of another forward pass.
    """

    trunk_options: Options
    head_options: Mapping[str, Options]
    axis_name: str | None = None
    precision: str = "float32"
    remat: bool = False

    def setup(self) -> None:
        """Names the parts: trunk, heads_<property>."""
        options = dict(self.trunk_options)
        self.trunk = TRUNKS[options.pop("kind")](
            **options,
            axis_name=self.axis_name,
            dtype="bfloat16" if self.precision == "bfloat16" else None,
            remat=self.remat,
        )
        self.heads = {
            name: make_head(options, name=f"heads_{name}")
            for name, options in self.head_options.items()
        }

    def __call__(self, batch: CrystalBatch, train: bool = False) -> jax.Array:
        """Returns scaled predictions, [crystals, properties]."""
        pooled = self.embed(batch, train)
        with jax.default_matmul_precision(self.precision):
            return jnp.concatenate([head(pooled) for head in self.heads.values()], axis=-1)

    def embed(self, batch: CrystalBatch, train: bool = False) -> jax.Array:
        """Returns pooled vectors, [crystals, width]."""
        with jax.default_matmul_precision(self.precision):
            return self.trunk(batch, train)


def build_network(
    trunk: Options,
    heads: Mapping[str, Options],
    *,
    precision: str = "float32",
    remat: bool = False,
) -> CrystalNetwork:
    """Returns the network described by plain values, as they stand in configs and checkpoints.

    Args:
        trunk: {"kind": "alignn", option: value, ...}; options left out keep their defaults.
        heads: property → {"kind": "linear" | "linear_pair" | "mlp", option: value, ...}.
        precision: "float32"; "tensorfloat32", faster on GPUs that have it and the same elsewhere;
            or "bfloat16", in which activations are kept as well. Variables, batch statistics,
            sums over neighbours and predictions have the type of the batch in all of them.
        remat: keep only what passes between layers for the backward pass; the rest is computed
            again.

    Raises:
        UserError: an unknown trunk, head, option or precision, or a property name that cannot
            name a parameter.
    """
    kind = trunk.get("kind")
    if not isinstance(kind, str) or kind not in TRUNKS:
        raise UserError(f"Trunk {kind!r} is unknown; use one of {', '.join(TRUNKS)}.")
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(TRUNKS[kind])
        if field.name not in {*_COMPUTATION, "parent", "name"}
    }
    check_options(f"Trunk {kind!r}", {n: v for n, v in trunk.items() if n != "kind"}, defaults)
    if precision not in PRECISIONS:
        raise UserError(f"Precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}.")
    if not heads:
        raise UserError("A network needs at least one head.")
    for name in heads:
        if not (isinstance(name, str) and re.fullmatch(r"\w{1,100}", name)):
            raise UserError(
                f"Property name {name!r} cannot name a head: use letters, digits and underscores."
            )
        make_head(heads[name], name=name)
    return CrystalNetwork(
        dict(trunk),
        {name: dict(heads[name]) for name in heads},
        precision=precision,
        remat=remat,
    )
