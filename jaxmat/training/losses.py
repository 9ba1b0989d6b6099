"""Losses that leave out missing labels and padding, as sums that devices can add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxmat.batch import CrystalBatch

# From (prediction, batch) to numerators and denominators, which devices can add up: the loss is the
# sum of the quotients.
Loss = Callable[[jax.Array, CrystalBatch], tuple[jax.Array, jax.Array]]

Average = Literal["properties", "entries"]


def squared(residual: jax.Array) -> jax.Array:
    """Squared error of each entry.

    Args:
        residual: prediction minus target, scaled, any shape.
    """
    return jnp.square(residual)


def absolute(residual: jax.Array) -> jax.Array:
    """Absolute error of each entry.

    Args:
        residual: prediction minus target, scaled, any shape.
    """
    return jnp.abs(residual)


def huber(residual: jax.Array) -> jax.Array:
    """Huber's loss of each entry: squared up to one scaled unit, absolute beyond.

    Args:
        residual: prediction minus target, scaled, any shape.
    """
    size = jnp.abs(residual)
    return jnp.where(size <= 1.0, 0.5 * jnp.square(residual), size - 0.5)


def masked_loss(
    prediction: jax.Array,
    batch: CrystalBatch,
    elementwise: Callable[[jax.Array], jax.Array],
    average: Average,
) -> tuple[jax.Array, jax.Array]:
    """Numerators and denominators of the mean loss over the labels of a batch.

    They are sums, so that those of several devices may be added before the division. A property
    without a label in the batch has the numerator 0, whatever its prediction is.

    Args:
        prediction: scaled, [crystals, properties].
        batch: the batch with its targets and masks.
        elementwise: loss of a residual; zero at zero.
        average: "properties": the mean over the properties of each one's mean over the labels it
            has. "entries": the mean over every property of every crystal, as in the published
            multi-property loss, in which labels that are missing count as met. For one property
            with all its labels these are the same.

    Returns:
        Numerators and denominators, [properties] each; the loss is the sum of the quotients.
    """
    properties = prediction.shape[1]
    present = batch.target_mask > 0
    # Chosen before the loss: a NaN left out only afterwards would still reach the gradient.
    residual = jnp.where(present, prediction - batch.target, 0.0)
    if average == "properties":
        count = jnp.sum(present, axis=0)
    else:
        count = jnp.broadcast_to(jnp.sum(batch.crystal_mask > 0), (properties,))
    sums = jnp.sum(elementwise(residual), axis=0)
    return sums / properties, count.astype(prediction.dtype)
