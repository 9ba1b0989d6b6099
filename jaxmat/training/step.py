"""One training step, in two parts, and one prediction, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from jaxmat.batch import CrystalBatch
from jaxmat.training.losses import Loss
from jaxmat.training.state import TrainState
from jaxmat.training.still import still


class Gradients(NamedTuple):
    """What a batch says about a state.

    Attributes:
        loss: scalar.
        params: its gradient, like the parameters; zeros for those that do not train.
        batch_stats: running statistics after the batch.
        crystals: number of crystals, scalar.
    """

    loss: jax.Array
    params: Any
    batch_stats: Any
    crystals: jax.Array


class Applicable(Protocol):
    """A network, as flax.linen.Module is one."""

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """Returns predictions, with `mutable` and what was updated."""


# Of a batch as it is, or as it is sent: `jaxmat.training.sending.Sent`.
Differentiate = Callable[[TrainState, Any], Gradients]
Update = Callable[[TrainState, Gradients], tuple[TrainState, dict[str, jax.Array]]]
TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
PredictStep = Callable[[dict[str, Any], CrystalBatch], jax.Array]


def make_train_step(
    network: Applicable,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    trainable: Any = None,
    still_norms: Sequence[str] = (),
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds the function from (state, batch) to (state, metrics), not compiled.

    Half of a step's operations are the optimizer's, on hundreds of small arrays. A run compiles
    the two parts apart (`jaxmat.training.parallel`), and so the second once for all shapes.

    Args:
        network: see `make_differentiate`, as for all that `make_update` does not know.
        optimizer: see `make_update`.
        loss: from (prediction, batch) to numerators and denominators.
        trainable: tree of bools like the parameters, or None for all.
        still_norms: paths of batch norms that stand still.
        ema_decay: decay of the moving averages, or None where the state keeps none.
        axis_name: name of the mapped axis over devices, if any.
    """
    differentiate = make_differentiate(
        network, loss, trainable=trainable, still_norms=still_norms, axis_name=axis_name
    )
    return in_two_parts(differentiate, make_update(optimizer, ema_decay=ema_decay))


def in_two_parts(differentiate: Differentiate, update: Update) -> TrainStep:
    """Puts the parts of a step together."""

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return update(state, differentiate(state, batch))

    return train_step


def make_differentiate(
    network: Applicable,
    loss: Loss,
    *,
    trainable: Any = None,
    still_norms: Sequence[str] = (),
    axis_name: str | None = None,
) -> Differentiate:
    """Builds the function from (state, batch) to gradients.

    With an axis name, each device works on its own batch and all end with the gradients that one
    device would have with all the crystals. Wrap it in jax.pmap, or in jax.shard_map with
    check_vma=False; otherwise gradients arrive already summed and are summed twice.

    Args:
        network: module whose apply(variables, batch, train) gives predictions; its batch norms
            have to know the same axis name.
        loss: from (prediction, batch) to numerators and denominators.
        trainable: tree of bools like the parameters, or None for all; gradients of the other
            leaves are not computed. It stops no update: give the optimizer the same tree.
        still_norms: paths of batch norms that use their running statistics and leave them alone,
            such as "trunk/atom_embedding/norm".
        axis_name: name of the mapped axis over devices, if any.

    Returns:
        The function, not compiled; see `compiler_options`.
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

    def differentiate(state: TrainState, batch: CrystalBatch) -> Gradients:
        (share, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.batch_stats, batch
        )
        value, gradients, crystals = total((share, gradients, jnp.sum(batch.crystal_mask)))
        return Gradients(value, gradients, batch_stats, crystals)

    return differentiate


def make_update(
    optimizer: optax.GradientTransformation, *, ema_decay: float | None = None
) -> Update:
    """Builds the function from (state, gradients) to (state, metrics).

    Where the loss or a gradient is not finite it changes nothing but the number of the step.

    Args:
        optimizer: turns gradients into updates.
        ema_decay: decay of the moving averages, or None where the state keeps none.

    Returns:
        The function, not compiled. Metrics, all scalars: "loss", "grad_norm", "crystals",
        "skipped" (1 where the step changed nothing).
    """

    def update(state: TrainState, gradients: Gradients) -> tuple[TrainState, dict[str, jax.Array]]:
        grad_norm = optax.tree.norm(gradients.params)
        finite = jnp.isfinite(gradients.loss) & jnp.isfinite(grad_norm)

        def changed(state: TrainState) -> TrainState:
            updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
            params, batch_stats = optax.apply_updates(state.params, updates), gradients.batch_stats
            ema = state.ema
            if ema_decay is not None:
                variables = {"params": params, "batch_stats": batch_stats}
                ema = _averaged(ema, variables, state.step, ema_decay)
            return TrainState(state.step, params, batch_stats, opt_state, ema)

        # XLA copies what it overwrites and yet reads once more: on CPUs the old numbers of a
        # choice, on accelerators all operands of a branch.
        state = jax.lax.platform_dependent(
            state,
            cpu=lambda state: jax.lax.cond(finite, changed, lambda state: state, state),
            default=lambda state: jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), changed(state), state
            ),
        )
        state = state._replace(step=state.step + 1)
        metrics = {
            "loss": gradients.loss,
            "grad_norm": grad_norm,
            "crystals": gradients.crystals,
            "skipped": 1 - finite.astype(jnp.int32),
        }
        return state, metrics

    return update


def compiler_options(platform: str) -> dict[str, str | int]:
    """Returns what jax.jit has to be told about programs with the gradient of a network.

    XLA for CPUs, before JAX 0.11, takes away the barriers between what is computed first and what
    is computed again, and then finds both to be the same and keeps the first: that would save no
    memory. It also uses half of the vector registers of processors with AVX-512 unless told
    otherwise. XLA for GPUs has to take them away, and stops where it may not.

    Args:
        platform: of the devices, such as "cpu".
    """
    if platform == "cpu":
        return {
            "xla_disable_hlo_passes": "cse_barrier_expander",
            "xla_cpu_prefer_vector_width": 512,
        }
    return {}


def make_predict_step(network: Applicable) -> PredictStep:
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
