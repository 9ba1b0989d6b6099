"""What training changes: one pytree that holds all of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
        step: number of steps done, int32 scalar.
        params: parameter tree.
        batch_stats: running means and variances of the batch norms.
        opt_state: state of the optimizer.
        ema: {"params", "batch_stats"}, their exponential moving averages, or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: dict[str, Any] | None


def create_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """State before the first step.

    Args:
        variables: {"params", "batch_stats"} of the network. They are copied, because the state
            of a training loop is donated and its arrays are overwritten.
        optimizer: the optimizer of the run.
        ema: whether to keep exponential moving averages.

    Returns:
        The state at step 0.
    """
    params, batch_stats = jax.tree.map(
        jnp.array, (variables["params"], variables.get("batch_stats", {}))
    )
    averages = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.array, averages) if ema else None,
    )


def averaged_variables(state: TrainState) -> dict[str, Any]:
    """The variables to predict with: the averages where they are kept, else the live ones.

    Args:
        state: a training state.

    Returns:
        {"params", "batch_stats"}.
    """
    if state.ema is not None:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}
