"""Which of two methods is better, and how many labels one saves: from rows, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.published import KINDS, Marks
from benchmarks.results.rows import Draw, Row
from jaxmat.report.study.statistics import LEVEL, Change, paired_change

# No claim is made about these sets: one test crystal decides the errors of pz, and the trials of
# jarvis2d all have the same labels, so that they say nothing about other labels.
NO_CLAIM = ("pz", "jarvis2d")
_LEAST_TRIALS = 3  # from which labels saved get an interval
_RESAMPLES = 2000

# Errors of a method by trial (or seed), for each target and number of labels.
Errors = dict[tuple[str, int], dict[Draw, float]]


class Comparison(NamedTuple):
    """Two methods of one item.

    Attributes:
        item: whose rows are compared.
        method: of the item.
        baseline: of the same item, or one of the kinds of published errors.
        main: whether it is one of the main claims, which have to hold together.
        trials: that both have to have before anything is said.
    """

    item: str
    method: str
    baseline: str
    main: bool = False
    trials: int = 4


class Compared(NamedTuple):
    """What came of a comparison for one target and number of labels.

    Attributes:
        comparison: which.
        target: property.
        labels: of both.
        trials: that both have.
        change: of the error of the method relative to the baseline.
        p: of a paired t test on logarithms; NaN for one trial.
        adjusted: p of a main claim by Holm's method, NaN for others.
    """

    comparison: Comparison
    target: str
    labels: int
    trials: int
    change: Change
    p: float
    adjusted: float

    @property
    def verdict(self) -> str:
        """What may be said."""
        change, low, high = self.change
        if self.target in NO_CLAIM:
            return "no claim rests on this set"
        if self.trials < self.comparison.trials:
            return f"open: {self.trials} of {self.comparison.trials} trials"
        if low <= 0 <= high:
            return "no difference shown"
        if not math.isnan(self.adjusted) and self.adjusted >= 1 - LEVEL:
            return "not beyond chance among the main claims"
        return "better" if change < 0 else "worse"


class Saved(NamedTuple):
    """How many labels a baseline needs for the error of a method.

    Attributes:
        comparison: which.
        target: property.
        labels: of the method.
        trials: of the method.
        verdict: of the comparison of both with as many labels; "" where they are not compared.
        ratio: labels that the baseline needs over those of the method: 0 if fewer than its curve
            begins with, infinite if more than it ends with.
        low: lower end of the 95 % bootstrap interval over trials, NaN for few trials.
        high: upper end.
        least: what a ratio of 0 is below.
        most: what an infinite ratio is above.
    """

    comparison: Comparison
    target: str
    labels: int
    trials: int
    verdict: str
    ratio: float
    low: float
    high: float
    least: float
    most: float


def errors_of(rows: Sequence[Row], item: str, method: str, marks: Marks) -> Errors:
    """Returns the errors of a method of an item, or those published.

    They are in half ranges where there are any, else in the unit; the mean over the seeds of a
    trial.
    """
    if method in KINDS:
        return {
            (target, labels): {(trial, None): mae for trial, mae in mark.by_trial.items()}
            for (target, labels, kind), mark in marks.items()
            if kind == method
        }
    lists: dict[tuple[str, int], dict[Draw, list[float]]] = {}
    for row in rows:
        if (row.item, row.method) == (item, method):
            error = row.mae if math.isnan(row.scaled_mae) else row.scaled_mae
            cell = lists.setdefault((row.target, row.labels), {})
            cell.setdefault(row.draw, []).append(error)
    return {
        key: {draw: float(np.mean(errors)) for draw, errors in cell.items()}
        for key, cell in lists.items()
    }


def compare(rows: Sequence[Row], comparisons: Sequence[Comparison], marks: Marks) -> list[Compared]:
    """Returns all that can be compared; the main claims are corrected together."""
    found = []
    for comparison in comparisons:
        ours, base = (
            errors_of(rows, comparison.item, method, marks)
            for method in (comparison.method, comparison.baseline)
        )
        for key, errors in ours.items():
            both = [draw for draw in errors if draw in base.get(key, {})]
            if both:
                pair = [errors[d] for d in both], [base[key][d] for d in both]
                change, p = paired_change(*pair), paired_p(*pair)
                found.append(Compared(comparison, *key, len(both), change, p, math.nan))
    main = [
        c
        for c in found
        if c.comparison.main and c.target not in NO_CLAIM and c.trials >= c.comparison.trials
    ]
    adjusted = dict(zip(map(id, main), holm([c.p for c in main]), strict=True))
    return [c._replace(adjusted=adjusted.get(id(c), math.nan)) for c in found]


def paired_p(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """Returns the p of a paired t test, two-sided, on logarithms; NaN for one trial."""
    difference = np.log(ours) - np.log(baseline)
    if len(difference) < 2:
        return math.nan
    error = float(np.std(difference, ddof=1)) / len(difference) ** 0.5
    mean = abs(float(np.mean(difference)))
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(mean / error, len(difference) - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Returns p values that hold together (Holm, Scand. J. Stat. 6, 65 (1979))."""
    order = np.argsort(ps, kind="stable")
    steps = np.array(ps)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in adjusted]


def labels_saved(
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    marks: Marks,
    compared: Sequence[Compared] = (),
) -> list[Saved]:
    """Returns how many labels methods save, where the baseline was trained on several numbers.

    Args:
        rows: all results.
        comparisons: for which labels are counted.
        marks: the published errors.
        compared: what `compare` returned, for the verdicts.
    """
    verdicts = {(*c.comparison[:3], c.target, c.labels): c.verdict for c in compared}
    found = []
    for comparison in comparisons:
        ours, base = (
            errors_of(rows, comparison.item, method, marks)
            for method in (comparison.method, comparison.baseline)
        )
        for (target, labels), errors in ours.items():
            draws = list(errors)
            curve = {
                n: np.array([of[draw] for draw in draws])
                for (key, n), of in sorted(base.items())
                if key == target and all(draw in of for draw in draws)
            }
            if len(curve) > 1:
                ratios = _ratios(np.array(list(errors.values())), labels, curve)
                ends = min(curve) / labels, max(curve) / labels
                verdict = verdicts.get((*comparison[:3], target, labels), "")
                cell = comparison, target, labels, len(draws), verdict
                found.append(Saved(*cell, *ratios, *ends))
    return found


def _ratios(
    errors: np.ndarray, labels: int, curve: Mapping[int, np.ndarray]
) -> tuple[float, float, float]:
    """Returns the ratio and the ends of its interval; the arrays are [trials], the same ones."""

    def ratios(drawn: np.ndarray) -> list[float]:  # [draws, trials] → one a draw
        reached = errors[drawn].mean(axis=1)
        means = np.stack([of[drawn].mean(axis=1) for of in curve.values()], axis=1)
        pairs = zip(means.tolist(), reached.tolist(), strict=True)
        return [labels_needed(dict(zip(curve, m, strict=True)), e) / labels for m, e in pairs]

    (everything,) = ratios(np.arange(len(errors))[None])
    if len(errors) < _LEAST_TRIALS:
        return everything, math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(errors), (_RESAMPLES, len(errors)))
    # No interpolation: a ratio may be infinite.
    ends = np.quantile(ratios(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return everything, float(ends[0]), float(ends[1])


def labels_needed(curve: Mapping[int, float], error: float) -> float:
    """Returns the labels at which a curve first comes down to an error.

    Args:
        curve: number of labels, in rising order → error; straight on logarithms in between.
        error: to reach.

    Returns:
        0 where the curve begins below it, infinity where it does not come down to it.
    """
    sizes, errors = list(curve), list(curve.values())
    if errors[0] < error:
        return 0.0
    if errors[0] == error:
        return float(sizes[0])
    for (n, above), (m, below) in zip(
        zip(sizes, errors, strict=True), zip(sizes[1:], errors[1:], strict=True), strict=False
    ):
        if below <= error:
            share = math.log(above / error) / math.log(above / below)
            return float(n * (m / n) ** share)
    return math.inf
