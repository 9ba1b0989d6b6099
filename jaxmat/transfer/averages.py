"""Weights between those of several networks: interpolation and soups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.transfer.strategies import Strategy

Variables = dict[str, Any]


class Finished(NamedTuple):
    """What came of trained members.

    Attributes:
        variables: {"params", "batch_stats"} to predict with.
        factor: where they lie between the source (0) and the tuned weights (1).
    """

    variables: Variables
    factor: float


def mean(trees: Iterable[Any]) -> Any:
    """Returns the mean of at least one tree; leaves that are equal in all stay, bit for bit."""
    trees = iter(trees)
    result = next(trees)
    for count, tree in enumerate(trees, start=2):
        result = jax.tree.map(lambda old, new, n=count: old + (new - old) / n, result, tree)
    return result


def interpolate(source: Mapping[str, Any], tuned: Any, factor: float) -> dict[str, Any]:
    """Returns parameters between those of the source and the tuned ones.

    Args:
        source: the part of the parameter tree that has a source, see
            `jaxmat.transfer.trees.copied_params`; the rest, such as a new head, stays as tuned.
        tuned: parameter tree.
        factor: 0 gives the source and 1 the tuned parameters, bit for bit. Parameters that are
            equal in both stay so.
    """
    result = dict(flatten_dict(tuned, sep="/"))
    for name, start in flatten_dict(source, sep="/").items():
        end = result[name]
        result[name] = jnp.where(factor == 1, end, start + factor * (end - start))
    return unflatten_dict(result, sep="/")


def finish(
    strategy: Strategy,
    source: Mapping[str, Any],
    members: Sequence[Variables],
    *,
    evaluate: Callable[[Variables], float],
    reestimate: Callable[[Variables], Any],
) -> Finished:
    """Averages trained members and chooses among interpolations, as far as the strategy asks.

    Model soups: Wortsman et al., arXiv:2203.05482. Interpolation: Wortsman et al.,
    arXiv:2109.01903; here the batch statistics of each are taken anew.

    Args:
        strategy: the strategy.
        source: see `interpolate`.
        members: {"params", "batch_stats"} of each; a single one is not changed by averaging.
        evaluate: from variables to their error on the validation part; one that is not a number
            is never chosen.
        reestimate: from variables to the batch statistics of their parameters on training data.

    Returns:
        The variables with the least error, of equal ones those nearest to the tuned weights.
    """

    def renewed(params: Any) -> Variables:
        variables = members[0] | {"params": params}
        return variables | {"batch_stats": reestimate(variables)}

    tuned = members[0]
    if len(members) > 1:
        tuned = renewed(mean(member["params"] for member in members))
    best, lowest = Finished(tuned, 1.0), math.inf
    for factor in sorted(strategy.interpolation or (1.0,)):
        variables = tuned
        if factor != 1:
            variables = renewed(interpolate(source, tuned["params"], factor))
        error = evaluate(variables)
        if error <= lowest:
            best, lowest = Finished(variables, factor), error
    return best
