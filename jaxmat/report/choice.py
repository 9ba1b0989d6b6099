"""Out-of-fold errors of several ways to train: compared, written and drawn.

The way with the least error is chosen, not the simplest one within a standard error: all of them
give the same network to predict with, and with few labels a standard error is much to give away.
Those within one are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmat.report.names import short_names
from jaxmat.report.plots import save_figure
from jaxmat.report.rows import write_rows
from jaxmat.report.tables import Cell, format_number, format_quantity, format_table, with_unit

_RESAMPLES = 1000


class Option(NamedTuple):
    """A way to train.

    Attributes:
        source: checkpoint to start from, "" for random weights.
        strategy: of fine-tuning, "" for random weights.
    """

    source: str
    strategy: str

    def __str__(self) -> str:
        return f"{self.strategy} from {self.source}" if self.source else "random weights"


SCRATCH = Option("", "")
COMPARISON = "comparison.csv"


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
        constant: error of a constant prediction.
        optimism: by how much the best of the options looks better than it is.
        failed: options that could not be trained, and why.
        labels: number of crystals.
        unit: of the property.
    """

    scores: list[Score]
    constant: Estimate
    optimism: float
    failed: Mapping[Option, str]
    labels: int
    unit: str

    @property
    def expected(self) -> Estimate:
        """The error to expect of the best option."""
        mae = self.scores[0].mae
        return Estimate(mae.value + self.optimism, mae.error)


def compare(
    errors: Mapping[Option, np.ndarray],
    constant: np.ndarray,
    *,
    folds: int,
    unit: str,
    failed: Mapping[Option, str],
) -> Comparison:
    """Compares options crystal by crystal.

    Args:
        errors: absolute error of each crystal's out-of-fold prediction, in `unit`, [crystals]; of
            options with the same error the first is better.
        constant: the same of a constant prediction.
        folds: number of folds.
        unit: of the property.
        failed: options that could not be trained, and why.
    """
    ranked = sorted(errors, key=lambda option: float(np.mean(errors[option])))
    best, scratch = errors[ranked[0]], errors.get(SCRATCH)
    scores = [
        Score(
            option,
            mae=estimate(errors[option], folds),
            behind=estimate(errors[option] - best, folds),
            to_scratch=None if scratch is None else change(errors[option], scratch, folds),
            to_constant=change(errors[option], constant, folds),
        )
        for option in ranked
    ]
    return Comparison(
        scores,
        estimate(constant, folds),
        optimism(np.stack([errors[option] for option in ranked])),
        failed,
        len(constant),
        unit,
    )


def estimate(values: np.ndarray, folds: int) -> Estimate:
    """Returns the mean over crystals with a standard error that holds for cross-validation.

    Networks that share most of their training crystals err alike. The variance of the mean of F
    folds is therefore not 1/F but 1/F + n_test/n_train = 1/F + 1/(F - 1) times that of one fold
    (Nadeau and Bengio, Machine Learning 52, 239, 2003), which the scatter of the crystals gives.

    Args:
        values: [crystals], at least two.
        folds: number of folds.
    """
    of_one_fold = float(np.var(values, ddof=1)) * folds / len(values)
    variance = of_one_fold * (1 / folds + 1 / (folds - 1))
    return Estimate(float(np.mean(values)), math.sqrt(variance))


def change(ours: np.ndarray, reference: np.ndarray, folds: int) -> Estimate:
    """Returns the relative change of a mean error, linearised for its standard error.

    Args:
        ours: errors, [crystals].
        reference: errors on the same crystals, [crystals]; NaN where all are zero.
        folds: number of folds.
    """
    level = float(np.mean(reference))
    if level == 0:
        return Estimate(math.nan, math.nan)
    ratio = float(np.mean(ours)) / level
    return Estimate(ratio - 1, estimate((ours - ratio * reference) / level, folds).error)


def optimism(errors: np.ndarray, seed: int = 0) -> float:
    """Returns by how much the least mean error is below what its option will have.

    Crystals are resampled, the best option is chosen on those drawn and its error compared with
    that on those left out (Tsamardinos, Greasidou and Borboudakis, Machine Learning 107, 1895,
    2018). The same difference of the option that is best on all, zero on average, is subtracted:
    what is left comes from choosing alone.

    Args:
        errors: [options, crystals].
        seed: of the resampling.
    """
    n = errors.shape[1]
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    drawn = drawn[(drawn == 0).any(axis=1)]
    left_out = (drawn == 0) / (drawn == 0).sum(axis=1, keepdims=True)
    inside, outside = drawn @ errors.T / n, left_out @ errors.T
    chosen = inside.argmin(axis=1)
    lost = outside - inside  # [resamples, options]
    best = errors.mean(axis=1).argmin()
    return max(0.0, float(np.mean(lost[np.arange(len(lost)), chosen] - lost[:, best])))


def recommend(comparison: Comparison, name: str) -> str:
    """Returns in one sentence what to do.

    Args:
        comparison: the options.
        name: of the property.
    """
    best, *others = comparison.scores
    how = "Train from random weights"
    if best.option != SCRATCH:
        how = f"Fine-tune {best.option.source} with the strategy {best.option.strategy}"
    expected = _with_error(comparison.expected)
    unit = "" if comparison.unit == "1" else f" {comparison.unit}"
    changes = f"{_percent(best.to_constant)} against a constant"
    if best.to_scratch and best.option != SCRATCH:
        changes = f"{_percent(best.to_scratch)} against random weights and {changes}"
    text = f"{how}: the expected MAE of {name} is {expected}{unit} ({changes})"
    if best.to_constant.value + best.to_constant.error >= 0:
        text += ", which is not clearly better than a constant"
    if near := [str(s.option) for s in others if s.behind.value <= s.behind.error]:
        text += f"; within one standard error of it: {', '.join(near)}"
    return text + "."


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
                "source": option.source or "random weights",
                "strategy": option.strategy,
                mae_column: _with_error(mae),
                behind_column: _with_error(behind) if rank else "",
                "relative to random weights": compared,
                "relative to a constant": _percent(to_constant),
            }
        )
    constant = _with_error(comparison.constant)
    rows.append({"source": "constant (median of the labels)", mae_column: constant})
    text = format_table(rows)
    if comparison.failed:
        reasons = [f"- {option}: {reason}" for option, reason in comparison.failed.items()]
        text += "\n\nCould not be trained:\n\n" + "\n".join(reasons)
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
    for option, reason in comparison.failed.items():
        numbers = [*nothing] * len(estimates)
        rows.append((*option, "failed", *about, *numbers, directories[option], reason))
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
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set(title=name, xlabel=with_unit("out-of-fold MAE ± standard error", comparison.unit))
    figure.legend(loc="outside lower right", fontsize="small")
    save_figure(figure, file)


def _with_error(number: Estimate) -> str:
    return f"{format_number(number.value)} ± {format_number(number.error, digits=2)}"


def _percent(number: Estimate) -> str:
    return f"{number.value:+.0%} ± {number.error:.0%}"
