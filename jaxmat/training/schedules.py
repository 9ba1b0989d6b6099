"""Learning-rate and momentum schedules: functions of the step number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmat.errors import UserError

# torch.optim.lr_scheduler.OneCycleLR's own numbers, which the published runs left as they are.
_RISING_SHARE = 0.3
_START_DIVISOR = 25.0
_FINAL_DIVISOR = 1e4
_BASE_BETA1, _PEAK_BETA1 = 0.95, 0.85


def onecycle(max_rate: jax.Array | float, total_steps: int) -> optax.Schedule:
    """Learning rate of torch's OneCycleLR: a cosine up over 30 % of the steps, a cosine down.

    optax.cosine_onecycle_schedule has its peak and its end one step later than torch.

    Args:
        max_rate: the highest learning rate; the first is 1/25 of it, the last 1/250,000.
        total_steps: steps of the whole run; later steps keep the last rate.

    Returns:
        The schedule, step number (from 0) to learning rate.
    """
    first = max_rate / _START_DIVISOR
    return _two_cosines(first, max_rate, first / _FINAL_DIVISOR, total_steps)


def onecycle_beta1(total_steps: int) -> optax.Schedule:
    """Adam's beta1 in torch's OneCycleLR: 0.95 to 0.85 while the rate rises, then back to 0.95.

    Args:
        total_steps: steps of the whole run.

    Returns:
        The schedule, step number (from 0) to beta1.
    """
    return _two_cosines(_BASE_BETA1, _PEAK_BETA1, _BASE_BETA1, total_steps)


def warmup_cosine(
    max_rate: jax.Array | float, total_steps: int, warmup_steps: int
) -> optax.Schedule:
    """Learning rate that rises linearly from zero and falls to zero along a cosine.

    Args:
        max_rate: the highest learning rate, reached after the warm-up.
        total_steps: steps of the whole run, warm-up included.
        warmup_steps: steps of the linear rise.

    Returns:
        The schedule, step number (from 0) to learning rate.

    Raises:
        UserError: if the warm-up does not leave a step to the cosine.
    """
    if not 0 <= warmup_steps < total_steps:
        raise UserError(
            f"a warm-up of {warmup_steps} steps does not fit into a run of {total_steps} steps: "
            "make the warm-up shorter or the run longer"
        )
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, total_steps)
    return lambda step: max_rate * shape(step)


def _two_cosines(
    first: jax.Array | float, middle: jax.Array | float, last: jax.Array | float, total_steps: int
) -> optax.Schedule:
    """Cosines first to middle and middle to last, meeting where torch's OneCycleLR has its peak."""
    peak = _RISING_SHARE * total_steps - 1.0
    fall = total_steps - 1.0 - peak

    def schedule(step: jax.Array | np.ndarray | int) -> jax.Array:
        # In a run of three steps or less the peak lies before the first step; it is never at 0.
        rising = _cosine(first, middle, step / peak)
        falling = _cosine(middle, last, jnp.minimum((step - peak) / fall, 1.0))
        return jnp.where(step <= peak, rising, falling)

    return schedule


def _cosine(
    start: jax.Array | float, end: jax.Array | float, share: jax.Array | np.ndarray | float
) -> jax.Array:
    """Half a cosine wave from start (share 0) to end (share 1)."""
    return end + (start - end) / 2.0 * (1.0 + jnp.cos(jnp.pi * share))
