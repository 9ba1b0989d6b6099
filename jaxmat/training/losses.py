"""Losses that leave out missing labels and padding, as sums that devices can add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxmat.batch import CrystalBatch

# From (prediction, batch) to the loss's numerator and denominator.
Loss = Callable[[jax.Array, CrystalBatch], tuple[jax.Array, jax.Array]]


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
    average: Literal["labels", "entries"],
) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator of the mean loss over the labels of a batch.

    The two are sums, so that those of several devices may be added before the division.

    Args:
        prediction: scaled, [crystals, properties].
        batch: the batch with its targets and masks.
        elementwise: loss of a residual; zero at zero.
        average: what the denominator counts. "labels": the labels there are. "entries": every
            property of every crystal, as the published multi-property loss does, which thereby
            weakens the gradient by the share of labels that are missing.

    Returns:
        Numerator and denominator, scalars.
    """
    present = batch.target_mask > 0
    # Chosen before the loss: a NaN left out only afterwards would still reach the gradient.
    residual = jnp.where(present, prediction - batch.target, 0.0)
    if average == "labels":
        count = jnp.sum(present)
    else:
        count = jnp.sum(batch.crystal_mask > 0) * prediction.shape[1]
    return jnp.sum(elementwise(residual)), count.astype(prediction.dtype)
