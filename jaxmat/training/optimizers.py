"""AdamW with scheduled numbers, masked weight decay and frozen parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax


def make_optimizer(
    rate: optax.Schedule,
    beta1: optax.Schedule | float,
    *,
    weight_decay: float,
    decay_mask: Any,
    trainable: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) with torch's beta2 and epsilon.

    Args:
        rate: learning rate as a function of the step.
        beta1: decay rate of the first moment, a number or a function of the step.
        weight_decay: decoupled decay; each step takes rate * weight_decay of a parameter away.
        decay_mask: tree of bools like the parameters, or a function of the parameters that
            returns one; True decays.
        trainable: tree of bools like the parameters, or None for all. A leaf marked False is
            left as it is, bit for bit, and has no moments.

    Returns:
        The optimizer. optax.tree.get(state, "hyperparams") gives "learning_rate" and "b1" of the
        last step.
    """
    fixed = ("b2", "eps", "eps_root", "weight_decay", "mask")
    adamw = optax.inject_hyperparams(optax.adamw, static_args=fixed)(
        learning_rate=rate,
        b1=beta1,
        b2=0.999,
        eps=1e-8,
        weight_decay=weight_decay,
        mask=decay_mask,
    )
    if trainable is None:
        return adamw
    # optax.masked alone would pass the raw gradients of the frozen leaves on as their updates.
    frozen = jax.tree.map(lambda moves: not moves, trainable)
    return optax.selective_transform(adamw, freeze_mask=frozen)


def published_decay_mask(params: Any) -> Any:
    """Which parameters the published runs decay: all but biases and bn_nodes, bn_edges.

    Their rule looks for "bias" and "bn" in torch's names. In an MLP layer the batch norm has no
    such name there, so that its scale (`norm/scale` here) is decayed.

    Args:
        params: parameter tree.

    Returns:
        Tree of bools like the parameters, True where decayed.
    """
    return _mask_by_name(
        params, lambda name: name[-1] != "bias" and not {"bn_nodes", "bn_edges"} & set(name)
    )


def kernel_decay_mask(params: Any) -> Any:
    """Decays the kernels of linear layers and nothing else.

    Args:
        params: parameter tree.

    Returns:
        Tree of bools like the parameters, True where decayed.
    """
    return _mask_by_name(params, lambda name: name[-1] == "kernel")


def _mask_by_name(params: Any, chosen: Callable[[list[str]], bool]) -> Any:
    """Asks `chosen` about the parts of each leaf's name, such as ["trunk", "fc", "bias"]."""

    def decide(path: tuple[Any, ...], _: Any) -> bool:
        return chosen(jax.tree_util.keystr(path, simple=True, separator="/").split("/"))

    return jax.tree_util.tree_map_with_path(decide, params)
