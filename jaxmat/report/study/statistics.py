"""Intervals of relative changes, and the parts of a spread: functions of plain numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 100


class Change(NamedTuple):
    """A relative change, -0.2 for a fifth less, with its interval (NaN where there is none)."""

    change: float
    low: float
    high: float


class Errors(NamedTuple):
    """Absolute errors of one run, error[crystal] for the crystal of that id."""

    ids: tuple[str, ...]
    error: np.ndarray


def paired_change(ours: Sequence[float], baseline: Sequence[float]) -> Change:
    """Relative change of an error over matching trials, with the interval of a paired t test.

    It is taken on logarithms, so that half and double are equally far from no change and one trial
    in which the baseline has diverged does not outweigh the rest: the change is that of the
    geometric mean.

    Args:
        ours: positive error of each trial, [trials], at least one.
        baseline: of the same trials, [trials].
    """
    difference = np.log(ours) - np.log(baseline)
    mean, n = float(np.mean(difference)), len(difference)
    if n == 1:
        return Change(float(np.expm1(mean)), np.nan, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(difference, ddof=1) / n**0.5
    return Change(*(float(np.expm1(mean + shift)) for shift in (0.0, -half, half)))


def bootstrap_change(pairs: Sequence[tuple[Errors, Errors]], seed: int = 0) -> Change:
    """The same change with an interval over crystals: how much hangs on those that were tested.

    Crystals are resampled, each with its errors in all trials and in both runs (percentile
    bootstrap, Efron and Tibshirani, 1993, chapter 13). Whatever else differs between trials is
    held fixed.

    Args:
        pairs: errors of the run and of its baseline for each trial; crystals that only one of the
            two was tested on are left out.
        seed: of the resampling.

    Returns:
        NaN where no crystal is left, or some prediction is not a number.
    """
    ids = sorted({id for ours, baseline in pairs for id in set(ours.ids) & set(baseline.ids)})
    if not ids:
        return Change(np.nan, np.nan, np.nan)
    at = {id: position for position, id in enumerate(ids)}
    errors = np.zeros((2, len(pairs), len(ids)))  # zero where a trial did not test the crystal
    for trial, pair in enumerate(pairs):
        both = set(pair[0].ids) & set(pair[1].ids)
        for run, (names, error) in enumerate(pair):
            kept = [id in both for id in names]
            errors[run, trial, [at[id] for id in names if id in both]] = error[kept]
    columns = errors.reshape(-1, len(ids)).T

    draw = np.random.default_rng(seed)
    sums = [
        _resampled_counts(draw, len(ids)) @ columns for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    low, high = np.quantile(_change(np.concatenate(sums)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Change(float(_change(columns.sum(0, keepdims=True))[0]), float(low), float(high))


def spread_components(trials: Collection[Sequence[float]]) -> tuple[float, float]:
    """Tells the spread of samples from that of seeds, by a random-effects analysis of variance.

    Args:
        trials: for each trial, which has its own sample of labels, a number for each seed.

    Returns:
        Standard deviations due to the sample and due to the seed, each NaN where the runs do not
        identify it: both where no trial has two seeds, the first where there is one trial. A
        negative estimate of a variance counts as zero (Searle, Casella and McCulloch, Variance
        Components, 1992, section 3.6; unequal numbers of seeds are allowed).
    """
    sizes = np.array([len(values) for values in trials])
    n, k = int(sizes.sum()), len(sizes)
    if n == k:
        return np.nan, np.nan
    means = np.array([np.mean(values) for values in trials])
    within = float(sizes @ np.array([np.var(values) for values in trials])) / (n - k)
    if k == 1:
        return np.nan, within**0.5
    between = float(sizes @ (means - sizes @ means / n) ** 2) / (k - 1)
    per_trial = (n - float(sizes @ sizes) / n) / (k - 1)
    return max((between - within) / per_trial, 0.0) ** 0.5, within**0.5


def _resampled_counts(draw: np.random.Generator, n: int) -> np.ndarray:
    """Returns how often each of n things is drawn in some resamples, [resamples, n]."""
    drawn = draw.integers(0, n, (_RESAMPLES_AT_ONCE, n))
    drawn += n * np.arange(_RESAMPLES_AT_ONCE)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=_RESAMPLES_AT_ONCE * n)
    return counts.reshape(_RESAMPLES_AT_ONCE, n).astype(float)


def _change(sums: np.ndarray) -> np.ndarray:
    """Relative changes from sums of errors, [resamples, runs and trials]."""
    ours, baseline = np.split(sums, 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # an error may be zero, or NaN
        return np.expm1(np.mean(np.log(ours) - np.log(baseline), axis=1))
