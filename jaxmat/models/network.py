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
from jaxmat.models.cogn import CoGN
from jaxmat.models.descriptors import Descriptors
from jaxmat.models.elements import check_parts
from jaxmat.models.heads import make_head
from jaxmat.models.options import check_options
from jaxmat.models.trunk import COMPUTATION, Trunk

TRUNKS: dict[str, type[Trunk]] = {"alignn": ALIGNN, "cogn": CoGN, "descriptors": Descriptors}
# As jax.default_matmul_precision knows them; with the last one activations have that type, too.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
Options = Mapping[str, Any]


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
        self.trunk = make_trunk(
            self.trunk_options,
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
        return self.read(self.embed(batch, train), batch)

    def read(self, pooled: jax.Array, batch: CrystalBatch) -> jax.Array:
        """Returns the heads' scaled predictions from pooled vectors, [crystals, properties]."""
        with jax.default_matmul_precision(self.precision):
            inputs = {name: self.head_inputs(name, pooled, batch) for name in self.head_options}
            return jnp.concatenate([self.heads[name](inputs[name]) for name in inputs], axis=-1)

    def head_inputs(self, name: str, pooled: jax.Array, batch: CrystalBatch) -> jax.Array:
        """Returns what the head of a property sees, [crystals, columns]."""
        if self.head_options[name].get("descriptors"):
            return jnp.concatenate([pooled, batch.crystals.globals["descriptors"]], axis=-1)
        return pooled

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
        heads: property → {"kind": name in `jaxmat.models.heads.HEADS`, option: value, ...}.
        precision: "float32"; "tensorfloat32", faster on GPUs that have it and the same elsewhere;
            or "bfloat16", in which activations are kept as well. Variables, batch statistics,
            sums over neighbours and predictions have the type of the batch in all of them.
        remat: keep only what passes between layers for the backward pass; the rest is computed
            again.

    Raises:
        UserError: an unknown trunk, head, option or precision, or a property name that cannot
            name a parameter.
    """
    make_trunk(trunk)
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


def make_trunk(options: Options, **computation: Any) -> Trunk:
    """Returns a trunk, not bound to variables; see `jaxmat.models.trunk` for what it tells.

    Args:
        options: {"kind": name in TRUNKS, option: value, ...}.
        **computation: `axis_name`, `dtype` and `remat` of `Trunk`.

    Raises:
        UserError: an unknown trunk or option, or element features that are not there.
    """
    own = complete_options(options)
    trunk = TRUNKS[own.pop("kind")](**own, **computation, parent=None)
    check_parts(trunk.element_features)
    return trunk


def complete_options(options: Options) -> dict[str, Any]:
    """Returns the options of a trunk with the defaults of those that are left out or None.

    Args:
        options: see `make_trunk`.

    Raises:
        UserError: an unknown trunk or option, or a value that is not allowed.
    """
    given = {name: value for name, value in options.items() if value is not None}
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in TRUNKS:
        raise UserError(f"Trunk {kind!r} is unknown; use one of {', '.join(TRUNKS)}.")
    known = option_defaults(kind)
    check_options(f"Trunk {kind!r}", given, known)
    return {"kind": kind, **known, **given}


def option_defaults(kind: str) -> dict[str, Any]:
    """Returns the options of a kind of trunk with their defaults."""
    left_out = {*COMPUTATION, "parent", "name"}
    fields = dataclasses.fields(TRUNKS[kind])
    return {field.name: field.default for field in fields if field.name not in left_out}
