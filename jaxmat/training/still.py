"""Batch norms whose running statistics are used, and left as they are, in training too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax

from jaxmat.models.layers import BatchNormSiLU


def still(patterns: Sequence[str]) -> AbstractContextManager[None]:
    """Makes batch norms run as in evaluation, whatever `train` the network is applied with.

    Apply the network inside of it and inside of the function that is compiled: it acts while JAX
    traces, so it costs nothing when the program runs.

    Args:
        patterns: regular expressions for the beginnings of the paths of batch norms, such as
            "trunk/atom_embedding/norm"; none leaves all as they are.
    """

    def run(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        def in_evaluation(x: jax.Array, weight: jax.Array, train: bool) -> Any:
            return next_fun(x, weight, train=False)

        if isinstance(context.module, BatchNormSiLU) and context.method_name == "__call__":
            path = "/".join(context.module.path)
            if any(re.match(pattern, path) for pattern in patterns):
                return in_evaluation(*args, **kwargs)
        return next_fun(*args, **kwargs)

    return nn.intercept_methods(run)
