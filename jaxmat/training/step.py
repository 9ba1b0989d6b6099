"""One training step and one prediction, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmat.batch import CrystalBatch
from jaxmat.training.losses import Loss
from jaxmat.training.state import TrainState
from jaxmat.training.still import still

TrainStep = Callable[[TrainState, CrystalBatch], tuple[TrainState, dict[str, jax.Array]]]
PredictStep = Callable[[dict[str, Any], CrystalBatch], jax.Array]


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    trainable: Any = None,
    still_norms: Sequence[str] = (),
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds the function from (state, batch) to (state, metrics).

    A step whose loss or gradient is not finite changes nothing but the number of the step.

    With an axis name, each device works on its own batch and all end with the state that one
    device would reach with all the crystals. Wrap it in jax.pmap, or in jax.shard_map with
    check_vma=False; otherwise gradients arrive already summed and are summed twice.

    Args:
        network: module whose apply(variables, batch, train) gives predictions; its batch norms
            have to know the same axis name.
        optimizer: turns gradients into updates.
        loss: from (prediction, batch) to numerators and denominators.
        trainable: tree of bools like the parameters, or None for all; gradients of the other
            leaves are not computed. It stops no update: give the optimizer the same tree.
        still_norms: paths of batch norms that use their running statistics and leave them alone,
            such as "trunk/atom_embedding/norm".
        ema_decay: decay of the moving averages, or None where the state keeps none.
        axis_name: name of the mapped axis over devices, if any.

    Returns:
        The step, not compiled. Metrics, all scalars: "loss", "grad_norm", "crystals", "skipped"
        (1 where the step changed nothing).
    """

    def total(values: Any) -> Any:
        return values if axis_name is None else jax.lax.psum(values, axis_name)

    def objective(params: Any, batch_stats: Any, batch: CrystalBatch) -> tuple[jax.Array, Any]:
        if trainable is not None:
            params = jax.tree.map(
                lambda leaf, moves: leaf if moves else jax.lax.stop_gradient(leaf),
                params,
                trainable,
            )
        with still(still_norms):
            prediction, updated = network.apply(
                {"params": params, "batch_stats": batch_stats},
                batch,
                train=True,
                mutable=["batch_stats"],
            )
        numerators, denominators = loss(prediction, batch)
        # The sum over devices of these shares is the loss. It is taken after differentiation:
        # the gradient of a sum over devices would count every device's share once per device.
        share = jnp.sum(numerators / jnp.maximum(total(denominators), 1.0))
        return share, updated.get("batch_stats", {})

    def train_step(
        state: TrainState, batch: CrystalBatch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        (share, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.batch_stats, batch
        )
        value, gradients = total((share, gradients))
        grad_norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            variables = {"params": params, "batch_stats": batch_stats}
            ema = _averaged(ema, variables, state.step, ema_decay)
        changed = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
        unchanged = state._replace(step=state.step + 1)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), changed, unchanged)
        metrics = {
            "loss": value,
            "grad_norm": grad_norm,
            "crystals": total(jnp.sum(batch.crystal_mask)),
            "skipped": 1 - finite.astype(jnp.int32),
        }
        return state, metrics

    return train_step


def make_predict_step(network: nn.Module) -> PredictStep:
    """Builds the function from (variables, batch) to scaled predictions.

    Args:
        network: module whose apply(variables, batch, train) gives predictions.

    Returns:
        The function, not compiled; its result is [crystals, properties], padding included.
    """

    def predict_step(variables: dict[str, Any], batch: CrystalBatch) -> jax.Array:
        return cast(jax.Array, network.apply(variables, batch, train=False))

    return predict_step


def _averaged(ema: Any, variables: Any, step: jax.Array, decay: float) -> Any:
    """Moves the averages towards the variables, faster during the first steps."""
    # In this form averages of equal numbers are those numbers, bit for bit.
    keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1.0 - keep) * (new - old), ema, variables)
