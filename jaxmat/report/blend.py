"""A weighted mean of the best few candidates, and by how much choosing flatters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Candidates that a mean is made of, and steps in which its weights are found.
_MOST, _ROUNDS = 4, 12
_RESAMPLES = 200
# A mean has to be so much better than the best candidate alone to be worth its price.
_WORTH = 0.01


class Pick(NamedTuple):
    """What to predict with.

    Attributes:
        weights: of the candidates, summing to 1; most often one of them is 1, [candidates].
        error: mean absolute error of this on the labels it was picked with.
        optimism: by how much that is below what is to be expected.
    """

    weights: np.ndarray
    error: float
    optimism: float


def pick(predictions: np.ndarray, labels: np.ndarray, may_blend: np.ndarray, seed: int = 0) -> Pick:
    """Returns the best candidate or, where it is worth it, a weighted mean of the best few.

    Crystals are resampled, everything is picked anew on those drawn, and its error compared with
    that on those left out (Tsamardinos, Greasidou and Borboudakis, Machine Learning 107, 1895,
    2018). The same difference of what was picked on all, zero on average, is subtracted: what is
    left comes from picking alone.

    Args:
        predictions: out of fold, in the unit, [candidates, crystals].
        labels: [crystals].
        may_blend: whether a mean may hold them, bool [candidates].
        seed: of the resampling.
    """
    rng, n = np.random.default_rng(seed), len(labels)
    whole = np.arange(n)
    ways: list[Callable[..., np.ndarray]] = [best_alone]
    if may_blend.sum() > 1:
        ways.append(functools.partial(best_blend, may_blend=may_blend))
    picks = []
    for way in ways:
        weights = way(predictions, labels, whole)
        errors = np.abs(weights @ predictions - labels)
        lost = []
        for _ in range(_RESAMPLES):
            drawn = rng.integers(0, n, n)
            left_out = np.setdiff1d(whole, drawn)
            if len(left_out):
                again = np.abs(way(predictions, labels, drawn) @ predictions - labels)
                lost.append(
                    (again[left_out].mean() - again[drawn].mean())
                    - (errors[left_out].mean() - errors[drawn].mean())
                )
        optimism = max(0.0, float(np.mean(lost))) if lost else 0.0
        picks.append(Pick(weights, float(errors.mean()), optimism))
    alone, blend = picks[0], picks[-1]
    expected = blend.error + blend.optimism
    return blend if expected < (1 - _WORTH) * (alone.error + alone.optimism) else alone


def best_alone(predictions: np.ndarray, labels: np.ndarray, crystals: np.ndarray) -> np.ndarray:
    """Returns weights of which that of the candidate with the least error is 1."""
    errors = np.abs(predictions[:, crystals] - labels[crystals]).mean(axis=1)
    return np.eye(len(predictions))[errors.argmin()]


def best_blend(
    predictions: np.ndarray, labels: np.ndarray, crystals: np.ndarray, may_blend: np.ndarray
) -> np.ndarray:
    """Returns weights of the best few, found by forward selection with replacement.

    Caruana, Niculescu-Mizil, Crew and Ksikes, ICML 2004: what lowers the error of the mean most is
    added, again and again; its share in the sum is its weight.
    """
    chosen, target = predictions[:, crystals], labels[crystals]
    ranked = np.abs(chosen - target).mean(axis=1).argsort(kind="stable")
    few = ranked[may_blend[ranked]][:_MOST]
    counts, total = np.zeros(len(predictions)), np.zeros(len(target))
    for size in range(1, _ROUNDS + 1):
        errors = np.abs((total + chosen[few]) / size - target).mean(axis=1)
        best = few[errors.argmin()]
        counts[best] += 1
        total += chosen[best]
    return counts / _ROUNDS
