"""AdamW with scheduled numbers, masked weight decay, frozen parameters and a pull to a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict

from jaxmat.errors import UserError


def make_optimizer(
    rate: optax.Schedule,
    beta1: optax.Schedule | float,
    *,
    weight_decay: float,
    decay_mask: Any,
    trainable: Any = None,
    rate_factors: Any = None,
    source: Mapping[str, Any] | None = None,
    source_penalty: float = 0.0,
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
        rate_factors: tree of numbers like the parameters, or None. A leaf moves as with a
            learning rate that is so many times the rate, like a parameter group of torch.
        source: with a penalty, the part of the parameter tree that has a source, see
            `jaxmat.transfer.trees.copied_params`. It may be traced.
        source_penalty: decoupled penalty towards the source (L2-SP of Li et al.,
            arXiv:1802.01483, applied as AdamW applies its decay); each step takes
            rate * source_penalty of the distance to the source away.

    Returns:
        The optimizer. optax.tree.get(state, "hyperparams") gives "learning_rate" and "b1" of the
        last step.
    """

    def adamw(learning_rate: Any, b1: Any) -> optax.GradientTransformation:
        parts = [
            optax.scale_by_adam(b1=b1, b2=0.999, eps=1e-8),
            optax.add_decayed_weights(weight_decay, decay_mask),
        ]
        if source_penalty:
            assert source is not None, "a penalty towards the source needs the source"
            parts.append(_pull(source, source_penalty))
        return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))

    optimizer = optax.inject_hyperparams(adamw)(learning_rate=rate, b1=beta1)
    if trainable is not None:
        # optax.masked alone would pass the raw gradients of the frozen leaves on as updates.
        frozen = jax.tree.map(lambda moves: not moves, trainable)
        optimizer = optax.selective_transform(optimizer, freeze_mask=frozen)
    if rate_factors is not None:
        # Last, so that decay and penalty are scaled as well: a parameter that learns slowly has
        # to forget slowly, too, or the decay would win where the factor is small.
        optimizer = optax.chain(optimizer, _scale_by(rate_factors))
    return optimizer


def kernel_decay_mask(params: Any) -> Any:
    """Decays the kernels of linear layers and nothing else.

    Args:
        params: parameter tree.

    Returns:
        Tree of bools like the parameters, True where decayed.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _leaf_name(path).rpartition("/")[2] == "kernel", params
    )


def _pull(source: Mapping[str, Any], penalty: float) -> optax.GradientTransformation:
    """Adds `penalty` times the distance from the source to the updates of what has one."""
    origin = flatten_dict(source, sep="/")

    def add(updates: Any, params: Any) -> Any:
        def leaf(path: tuple[Any, ...], update: jax.Array, param: jax.Array) -> jax.Array:
            name = _leaf_name(path)
            return update + penalty * (param - origin[name]) if name in origin else update

        trained = {_leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
        if not trained & origin.keys():
            raise UserError(
                "A penalty towards the source needs parameters that are copied from it and train."
            )
        return jax.tree_util.tree_map_with_path(leaf, updates, params)

    return optax.stateless(add)


def _scale_by(factors: Any) -> optax.GradientTransformation:
    """Multiplies the update of each leaf by its factor."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, factors)
    )


def _leaf_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
