"""The first of two phases: the head alone, on vectors that the trunk computes once.

Kumar et al., arXiv:2202.10054: a head that has learnt nothing yet sends gradients through the
trunk that spoil what it knows; a head fitted first does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmat.batch import Array, CrystalBatch
from jaxmat.runtime.stopping import give_up_if_told
from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer


@dataclass(frozen=True)
class HeadFirst:
    """How a head is fitted.

    Attributes:
        learning_rate: of AdamW at the first step; it falls to zero along a cosine.
        steps: each on all training crystals.
        weight_decay: decoupled decay of kernels.
    """

    learning_rate: float = 1e-2
    steps: int = 1000
    weight_decay: float = 0.1


class Pooled(NamedTuple):
    """What a head is fitted on.

    Attributes:
        vector: pooled vectors, [crystals, width].
        target: scaled targets, 0 where missing, [crystals, properties].
        target_mask: 1 where there is a label, else 0, [crystals, properties].
    """

    vector: Array
    target: Array
    target_mask: Array


def pool(network: nn.Module, variables: dict[str, Any], batches: Iterable[CrystalBatch]) -> Pooled:
    """Returns pooled vectors and targets of crystals, in the order of the batches.

    Batch norms use their running statistics: those of a batch would tie each vector to the other
    crystals of its batch, and there would be nothing to compute once for all steps.

    Args:
        network: a network with a method `embed`.
        variables: {"params", "batch_stats"}.
        batches: each crystal once.
    """
    embed = jax.jit(partial(network.apply, method="embed"))
    parts = []
    for batch in batches:
        give_up_if_told()
        real = np.asarray(batch.crystal_mask) > 0
        rows = (embed(variables, batch), batch.target, batch.target_mask)
        parts.append([np.asarray(each)[real] for each in rows])
    return Pooled(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def fit_head(
    head: nn.Module,
    params: Any,
    training: Pooled,
    validation: Pooled,
    *,
    settings: HeadFirst,
    elementwise: Callable[[jax.Array], jax.Array],
) -> tuple[Any, jax.Array]:
    """Fits a head; a function of its arguments alone, so that a resumed run may repeat it.

    Args:
        head: maps vectors to predictions, [crystals, width] to [crystals, properties].
        params: of the head, where to start.
        training: what it is fitted on.
        validation: what chooses the step whose parameters are returned; it needs a label.
        settings: how it is fitted.
        elementwise: loss of a residual; the mean is over the labels.

    Returns:
        Parameters of the step with the least validation loss, the start among them, and that loss.
    """
    optimizer = make_optimizer(
        optax.cosine_decay_schedule(settings.learning_rate, settings.steps),
        0.9,
        weight_decay=settings.weight_decay,
        decay_mask=kernel_decay_mask,
    )

    def objective(params: Any, part: Pooled) -> jax.Array:
        # As precise as when it predicts; accelerators would take ten bits by default.
        with jax.default_matmul_precision("float32"):
            prediction = cast(jax.Array, head.apply({"params": params}, part.vector))
        residual = jnp.where(part.target_mask > 0, prediction - part.target, 0.0)
        return jnp.sum(elementwise(residual)) / jnp.sum(part.target_mask)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, opt_state, best, lowest = carry
        gradients = jax.grad(objective)(params, training)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        loss = objective(params, validation)
        better = loss < lowest
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
        return (params, opt_state, best, jnp.where(better, loss, lowest)), None

    start = (params, optimizer.init(params), params, objective(params, validation))
    (_, _, best, lowest), _ = jax.lax.scan(step, start, length=settings.steps)
    return best, lowest
