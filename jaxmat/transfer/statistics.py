"""Batch statistics of weights that no training has gone through, such as averages of others.

Statistics belong to the weights they were taken with: an average of statistics is not what the
averaged weights make of the data, so they are taken anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmat.batch import CrystalBatch
from jaxmat.models.layers import BATCH_NORM_MOMENTUM
from jaxmat.training.still import still

# From {"params", "batch_stats"} and batches to batch statistics.
Reestimate = Callable[[dict[str, Any], Iterable[CrystalBatch]], Any]


def make_reestimate(network: nn.Module, still_norms: Sequence[str] = ()) -> Reestimate:
    """Builds the function from variables and batches to batch statistics of their parameters.

    It is the mean over batches of each batch's mean and unbiased variance, which is what running
    statistics tend to while weights stand still. A batch counts by its crystals, so that a last one
    of a single crystal is no more than that; a running average forgets the early ones, here the
    order of the batches does not matter.

    Args:
        network: module whose apply(variables, batch, train) records batch statistics.
        still_norms: paths of batch norms that keep the statistics they have.

    Returns:
        The function. The batches are to be like those of training, for example an epoch of them.
    """

    @jax.jit
    def of_batch(variables: dict[str, Any], batch: CrystalBatch) -> Any:
        with still(still_norms):
            _, updated = network.apply(variables, batch, train=True, mutable=["batch_stats"])

        def undo_momentum(path: tuple[Any, ...], old: jax.Array, new: jax.Array) -> jax.Array:
            value = old + (new - old) / BATCH_NORM_MOMENTUM
            # Beside a large running variance, rounding can make a small one negative.
            return jnp.maximum(value, 0.0) if path[-1].key == "var" else value

        return jax.tree_util.tree_map_with_path(
            undo_momentum, variables["batch_stats"], updated.get("batch_stats", {})
        )

    def reestimate(variables: dict[str, Any], batches: Iterable[CrystalBatch]) -> Any:
        found, crystals = None, 0.0
        for batch in batches:
            of_this, more = of_batch(variables, batch), float(batch.crystal_mask.sum())
            crystals += more
            found = of_this if found is None else _towards(found, of_this, crystals / more)
        return found

    return reestimate


def _towards(old: Any, new: Any, count: float) -> Any:
    """Returns the mean of `count` trees, of which `new` is one and `old` the mean of the others."""
    return jax.tree.map(lambda one, other: one + (other - one) / count, old, new)
