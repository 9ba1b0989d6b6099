"""Out-of-fold errors of several ways to train: compared, written and drawn.

What has the least error is chosen, not the simplest within a standard error: with few labels a
standard error is much to give away. Those within one are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxmat.report.blend import pick
from jaxmat.report.names import short_names
from jaxmat.report.plots import name_ticks, save_figure
from jaxmat.report.rows import write_rows
from jaxmat.report.tables import (
    Cell,
    format_change,
    format_number,
    format_quantity,
    format_table,
    with_unit,
)


class Option(NamedTuple):
    """A way to train.

    Attributes:
        source: checkpoint to start from, "" for none.
        strategy: of fine-tuning; without a source "" for random weights, what elements are seen by
            for random weights with these element features, or `gaussian_process`.
    """

    source: str
    strategy: str

    def __str__(self) -> str:
        if self.source:
            return f"{self.strategy} from {self.source}"
        if self.is_closed_form:
            return "Gaussian process on descriptors"
        return "random weights" + (f", elements by {self.strategy}" if self.strategy else "")

    @property
    def is_closed_form(self) -> bool:
        """Whether it is fitted instead of trained."""
        return self.strategy.startswith("gaussian_process")


SCRATCH = Option("", "")
COMPARISON = "comparison.csv"
PROCESS = Option("", "gaussian_process")


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


class Score(NamedTuple):
    """How good an option is.

    Attributes:
        option: the option.
        mae: mean absolute error of the out-of-fold predictions, in the property's unit.
        behind: by how much that is above the best option's.
        to_scratch: its relative change from random weights, -0.2 for a fifth less; None where
            there is no such option.
        to_constant: its relative change from a constant prediction.
    """

    option: Option
    mae: Estimate
    behind: Estimate
    to_scratch: Estimate | None
    to_constant: Estimate


class Comparison(NamedTuple):
    """Options side by side.

    Attributes:
        scores: of all options, least error first.
        weights: of the options in the prediction, those of weight 0 left out; most often the first
            option alone.
        expected: the error to expect on the test part, with the standard error of that.
        constant: error of a constant prediction.
        optimism: by how much what was picked looks better than it is.
        left_out: options that were not gone on with, and why.
        failed: options that could not be trained, and why.
        labels: number of crystals that are compared.
        done: of how many folds they are.
        unit: of the property.
    """

    scores: list[Score]
    weights: dict[Option, float]
    expected: Estimate
    constant: Estimate
    optimism: float
    left_out: Mapping[Option, str]
    failed: Mapping[Option, str]
    labels: int
    done: int
    unit: str


def compare(
    predictions: Mapping[Option, np.ndarray],
    labels: np.ndarray,
    constant: np.ndarray,
    *,
    folds: int,
    done: int,
    n_test: int,
    unit: str,
    may_blend: Sequence[Option] = (),
    left_out: Mapping[Option, str] = MappingProxyType({}),
    failed: Mapping[Option, str] = MappingProxyType({}),
) -> Comparison:
    """Compares options crystal by crystal, and picks.

    Args:
        predictions: out of fold, in `unit`, [crystals]; of options with the same error the first
            is better.
        labels: in `unit`, [crystals].
        constant: predictions of a constant, [crystals].
        folds: number of folds that all labels were cut into.
        done: of how many folds these crystals are.
        n_test: crystals of the test part, whose mean error scatters by itself.
        unit: of the property.
        may_blend: options that a weighted mean may be made of; else one is picked.
        left_out: options that were not gone on with, and why.
        failed: options that could not be trained, and why.
    """
    errors = {option: np.abs(each - labels) for option, each in predictions.items()}
    ranked = sorted(errors, key=lambda option: float(np.mean(errors[option])))
    best, scratch = errors[ranked[0]], errors.get(SCRATCH)
    by_constant = np.abs(constant - labels)
    scores = [
        Score(
            option,
            mae=estimate(errors[option], folds, done),
            behind=estimate(errors[option] - best, folds, done),
            to_scratch=None if scratch is None else change(errors[option], scratch, folds, done),
            to_constant=change(errors[option], by_constant, folds, done),
        )
        for option in ranked
    ]
    stacked = np.stack([predictions[option] for option in ranked])
    picked = pick(stacked, labels, np.array([option in may_blend for option in ranked]))
    of_pick = np.abs(picked.weights @ stacked - labels)
    own = estimate(of_pick, folds, done).error
    scatter = float(np.std(of_pick, ddof=1)) / math.sqrt(n_test)
    return Comparison(
        scores,
        {o: float(w) for o, w in zip(ranked, picked.weights, strict=True) if w > 0},
        Estimate(picked.error + picked.optimism, math.hypot(own, scatter)),
        estimate(by_constant, folds, done),
        picked.optimism,
        left_out,
        failed,
        len(labels),
        done,
        unit,
    )


def estimate(values: np.ndarray, folds: int, done: int) -> Estimate:
    """Returns the mean over crystals with a standard error that holds for cross-validation.

    Networks that share most of their training crystals err alike. The variance of the mean of J
    folds, of F that all labels are cut into, is therefore not 1/J but 1/J + n_test/n_train =
    1/J + 1/(F - 1) times that of one fold (Nadeau and Bengio, Machine Learning 52, 239, 2003),
    which the scatter of the crystals gives.

    Args:
        values: [crystals], at least two.
        folds: number of folds that all labels are cut into.
        done: of how many folds the crystals are.
    """
    of_one_fold = float(np.var(values, ddof=1)) * done / len(values)
    variance = of_one_fold * (1 / done + 1 / (folds - 1))
    return Estimate(float(np.mean(values)), math.sqrt(variance))


def change(ours: np.ndarray, reference: np.ndarray, folds: int, done: int) -> Estimate:
    """Returns the relative change of a mean error, linearised for its standard error.

    Args:
        ours: errors, [crystals].
        reference: errors on the same crystals, [crystals]; NaN where all are zero.
        folds: number of folds that all labels are cut into.
        done: of how many folds the crystals are.
    """
    level = float(np.mean(reference))
    if level == 0:
        return Estimate(math.nan, math.nan)
    ratio = float(np.mean(ours)) / level
    return Estimate(ratio - 1, estimate((ours - ratio * reference) / level, folds, done).error)


def recommend(comparison: Comparison, name: str) -> str:
    """Returns in one sentence what to do.

    Args:
        comparison: the options.
        name: of the property.
    """
    best, *others = comparison.scores
    how = _instruction(best.option)
    if len(comparison.weights) > 1:
        parts = [f"{weight:.0%} {option}" for option, weight in comparison.weights.items()]
        how = f"Take the weighted mean of {', '.join(parts)}"
    expected = _with_error(comparison.expected)
    unit = "" if comparison.unit == "1" else f" {comparison.unit}"
    alone = "the best alone " if len(comparison.weights) > 1 else ""
    changes = []
    if best.to_scratch and best.option != SCRATCH and (relative := _percent(best.to_scratch)):
        changes.append(f"{relative} against random weights")
    if relative := _percent(best.to_constant):
        changes.append(f"{alone}{relative} against a constant")
    text = f"{how}: the expected MAE of {name} is {expected}{unit}"
    if changes:
        text += f" ({' and '.join(changes)})"
    if not best.to_constant.value + best.to_constant.error < 0:  # NaN: a constant has no error
        text += ", which is not clearly better than a constant"
    if near := [str(s.option) for s in others if s.behind.value <= s.behind.error]:
        text += f"; within one standard error of it: {', '.join(near)}"
    return text + "."


def _instruction(option: Option) -> str:
    """Returns what to do, in words that begin a sentence."""
    if option.source and option.is_closed_form:
        return f"Fit a Gaussian process to vectors of {option.source} ({option.strategy})"
    if option.source:
        return f"Fine-tune {option.source} with the strategy {option.strategy}"
    if option.is_closed_form:
        return "Fit a Gaussian process to descriptors"
    return f"Train from {option}"


def format_choice(comparison: Comparison) -> str:
    """Returns a Markdown table of the options and the reasons of those that failed."""
    mae_column, behind_column = (
        with_unit(name, comparison.unit) for name in ("out-of-fold MAE", "behind the best")
    )
    rows: list[dict[str, Cell]] = []
    for rank, (option, mae, behind, to_scratch, to_constant) in enumerate(comparison.scores):
        compared = "" if to_scratch is None or option == SCRATCH else _percent(to_scratch)
        rows.append(
            {
                "source": option.source or ("none" if option.is_closed_form else "random weights"),
                "strategy": option.strategy,
                mae_column: _with_error(mae),
                behind_column: _with_error(behind) if rank else "",
                "relative to random weights": compared,
                "relative to a constant": _percent(to_constant),
            }
        )
    constant = _with_error(comparison.constant)
    rows.append({"source": "constant (median of the training labels)", mae_column: constant})
    text = format_table(rows)
    groups = {"Left out": comparison.left_out, "Could not be trained": comparison.failed}
    for heading, reasons in groups.items():
        if reasons:
            lines = [f"- {option}: {reason}" for option, reason in reasons.items()]
            text += f"\n\n{heading}:\n\n" + "\n".join(lines)
    return text


def write_comparison(file: Path, comparison: Comparison, directories: Mapping[Option, str]) -> None:
    """Writes a CSV with one row an option.

    Args:
        file: to write.
        comparison: the options; errors are in the unit, changes relative.
        directories: where the runs of each option are.
    """
    estimates = Score._fields[1:]
    header = ["source", "strategy", "status", "labels", "unit"]
    header += [column for name in estimates for column in (name, f"{name}_standard_error")]
    about = (str(comparison.labels), comparison.unit)
    nothing = Estimate(math.nan, math.nan)
    rows: list[tuple[str | float, ...]] = []
    for score in comparison.scores:
        numbers = [number for one in score[1:] for number in one or nothing]
        rows.append((*score.option, "done", *about, *numbers, directories[score.option], ""))
    reasons = [("left out", *pair) for pair in comparison.left_out.items()]
    reasons += [("failed", *pair) for pair in comparison.failed.items()]
    for status, option, reason in reasons:
        numbers = [*nothing] * len(estimates)
        rows.append((*option, status, *about, *numbers, directories[option], reason))
    write_rows(file, [*header, "directory", "reason"], rows)


def draw_comparison(file: Path, comparison: Comparison, name: str) -> None:
    """Draws the out-of-fold error of each option, best on top, beside that of a constant.

    Args:
        file: PNG file to write.
        comparison: the options.
        name: of the property.
    """
    from matplotlib.figure import Figure  # here, as in `jaxmat.report.plots`

    scores, constant = comparison.scores, comparison.constant.value
    figure = Figure(figsize=(7.5, 1.8 + 0.32 * len(scores)), layout="constrained")
    axes = figure.subplots()
    axes.margins(y=0.5 / len(scores))
    places = range(len(scores))
    values, errors = zip(*(score.mae for score in scores), strict=True)
    axes.errorbar(values, places, xerr=errors, fmt="o", capsize=3)
    label = f"constant: {format_quantity(constant, comparison.unit)}"
    axes.axvline(constant, color="0.4", linestyle="--", label=label)
    names = short_names([score.option.source for score in scores])
    labels = [str(o._replace(source=names[o.source])) for o in (s.option for s in scores)]
    name_ticks(axes.yaxis, labels)
    axes.invert_yaxis()
    axes.set(title=name, xlabel=with_unit("out-of-fold MAE ± standard error", comparison.unit))
    figure.legend(loc="outside lower right", fontsize="small")
    save_figure(figure, file)


def _with_error(number: Estimate) -> str:
    return f"{format_number(number.value)} ± {format_number(number.error, digits=2)}"


def _percent(number: Estimate) -> str:
    """Returns a relative change, "" where it is not defined."""
    if math.isnan(number.value):
        return ""
    return f"{format_change(number.value)}% ± {number.error:.0%}"
