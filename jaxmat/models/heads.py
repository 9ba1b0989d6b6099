"""Heads: from a pooled crystal vector to one property."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from jaxmat.errors import UserError
from jaxmat.models.gaussian_process import GaussianProcessHead
from jaxmat.models.layers import Linear
from jaxmat.models.options import check_options


class LinearHead(nn.Module):
    """The single linear of the published single-property model."""

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Maps [crystals, width] to [crystals, 1]."""
        return Linear(1, name="out")(pooled)


class LinearPairHead(nn.Module):
    """The published new prediction head: two linears with no activation between them.

    Attributes:
        width: features between the two.
    """

    width: int = 64

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Maps [crystals, width] to [crystals, 1]."""
        return Linear(1, name="out")(Linear(self.width, name="hidden_0")(pooled))


class MLPHead(nn.Module):
    """The head of the published multi-property model; the pooled vector is activated first.

    Attributes:
        hidden_layers: hidden layers, 1 or 2 in the paper's models.
        width: features of a hidden layer.
    """

    hidden_layers: int = 2
    width: int = 128

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Maps [crystals, width] to [crystals, 1]."""
        x = nn.silu(pooled)
        for i in range(self.hidden_layers):
            x = nn.silu(Linear(self.width, name=f"hidden_{i}")(x))
        return Linear(1, name="out")(x)


HEADS = {
    "linear": LinearHead,
    "linear_pair": LinearPairHead,
    "mlp": MLPHead,
    "gaussian_process": GaussianProcessHead,
}


def is_fitted(options: Mapping[str, Any]) -> bool:
    """Whether a head of these options is fitted in closed form instead of trained."""
    return options.get("kind") == "gaussian_process"


def make_head(options: Mapping[str, Any], name: str | None = None) -> nn.Module:
    """Returns the head described by {"kind": ..., option: value, ...}.

    Raises:
        UserError: unknown kind or option.
    """
    options = dict(options)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in HEADS:
        raise UserError(f"Head kind {kind!r} is unknown; use one of {', '.join(HEADS)}.")
    fields = dataclasses.fields(HEADS[kind])
    defaults = {field.name: field.default for field in fields if field.name in _own(HEADS[kind])}
    check_options(f"Head kind {kind!r}", options, defaults)
    return HEADS[kind](**options, name=name)


def _own(head: type[nn.Module]) -> set[str]:
    """Returns the names of a head's own fields, without those that flax adds."""
    return {name for name in head.__annotations__ if name not in ("parent", "name", "scope")}
