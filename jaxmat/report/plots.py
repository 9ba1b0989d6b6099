"""Plots of a run: predictions against labels, and errors against the progress of training."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmat.errors import counted
from jaxmat.report.tables import format_number, format_quantity, with_unit
from jaxmat.runtime.files import shown_lines, whole_file
from jaxmat.training.metrics import regression_metrics

if TYPE_CHECKING:  # imported where it draws: a training does without its 25 MB until it ends
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 150
_LONGEST = 60  # letters of a line of text in a figure


def parity_plot(
    path: str | os.PathLike[str],
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str,
    unit: str,
    log: bool = False,
) -> None:
    """Draws predictions against labels, with MAE and R² of each series in the legend.

    Args:
        path: PNG file to write.
        series: label → (target, prediction), both in `unit`, [crystals]; NaN where missing.
        title: of the plot, such as the name of the property.
        unit: of the property, "1" if it has none.
        log: logarithmic axes, for a positive property with a long tail. Values up to zero have no
            place on them: the legend counts these crystals, and MAE and R² include them.
    """
    shown = {
        label: _shown(target, prediction, log) for label, (target, prediction) in series.items()
    }
    low, high = _limits(np.concatenate([values.ravel() for values in shown.values()]), log)

    figure, axes = _new_figure((5.2, 5.4))
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
    for label, (target, prediction) in series.items():
        fit = _describe_fit(label, target, prediction, unit, shown[label].shape[1])
        x, y = shown[label]
        axes.scatter(x, y, s=14, alpha=0.6, linewidths=0, label=fit)
    axes.set(title=title, xlabel=with_unit("label", unit), ylabel=with_unit("prediction", unit))
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    if log:
        axes.set(xscale="log", yscale="log")
        _label_log_axis(axes.xaxis)
        _label_log_axis(axes.yaxis)
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    save_figure(figure, path)


def fit_words(target: np.ndarray, prediction: np.ndarray, unit: str) -> list[str]:
    """Returns MAE and R² as legends have them, without what is not defined.

    Args:
        target: labels in `unit`, NaN where missing, [crystals].
        prediction: in `unit`, [crystals].
        unit: of the property, "1" if it has none.
    """
    fit = regression_metrics(target, prediction)
    words = {
        "mae": f"MAE {format_quantity(fit['mae'], unit)}",
        "r2": f"R² {format_number(fit['r2'], digits=3)}",
    }
    return [text for name, text in words.items() if not math.isnan(fit[name])]


def learning_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    xlabel: str,
    unit: str,
    baseline: tuple[str, float] | None = None,
) -> None:
    """Draws validation errors against the progress of training, with the least in the legend.

    Args:
        path: PNG file to write.
        curves: label → (progress, mean absolute error in `unit`), [evaluations]; NaN and 0 leave
            a gap.
        xlabel: what progress counts, such as "epoch".
        unit: of the property, "1" if it has none.
        baseline: label and error of a horizontal line to compare with, or None.
    """
    figure, axes = _new_figure((6.4, 4.2))
    # Errors fall by tens, most of it early: only a logarithmic axis shows the rest.
    axes.set(xlabel=xlabel, ylabel=with_unit("validation MAE", unit), yscale="log")
    for label, (progress, error) in curves.items():
        least = np.fmin.reduce(error, initial=np.nan)
        named = label if np.isnan(least) else f"{label}: least {format_number(least)}"
        positive = np.where(error > 0, error, np.nan)
        axes.plot(progress, positive, marker=".", linewidth=1, label=named)
    if baseline is not None:
        label, level = baseline
        axes.axhline(level, color="0.4", linestyle="--", label=f"{label}: {format_number(level)}")
    axes.locator_params(axis="x", integer=True)
    _label_log_axis(axes.yaxis)
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    save_figure(figure, path)


def name_ticks(axis: Axis, names: Sequence[str], most: int = _LONGEST) -> None:
    """Puts a tick with a name at 0, 1, 2 and so on; names stand there as they are.

    Args:
        axis: of a figure.
        names: of the ticks.
        most: letters of a name; a longer one is cut.
    """
    axis.set_ticks(range(len(names)), [_short(name, most) for name in names], parse_math=False)


def _short(text: str, most: int = _LONGEST) -> str:
    """Returns text as a figure shows it: in one line, without its end where it is long."""
    text = shown_lines(text).replace("\n", " ")
    text = text.encode("utf-8", "replace").decode("utf-8")  # other bytes of names: not to be drawn
    return text if len(text) <= most else f"{text[: most - 1]}…"


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = _DOTS_PER_INCH) -> None:
    """Writes a figure as PNG; names and units stand in it as they are, `$` included.

    Args:
        figure: what to write; tick labels alone may be formulas.
        path: file to write.
        dpi: dots per inch.
    """
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    for text in texts:
        text.set_parse_math(False)
        text.set_text("\n".join(map(_short, text.get_text().split("\n"))))
    with warnings.catch_warnings(), whole_file(path) as unfinished:
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(unfinished, dpi=dpi, format="png")


def _new_figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Returns a figure that pyplot knows nothing of, size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _shown(target: np.ndarray, prediction: np.ndarray, log: bool) -> np.ndarray:
    """Returns targets and predictions that have a place on the axes, [2, points]."""
    pairs = np.stack([target, prediction])
    return pairs[:, np.all(np.isfinite(pairs) & ((pairs > 0) | (not log)), axis=0)]


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    """Returns limits of the axes that leave a margin."""
    if log:
        low, high = _limits(np.log10(values), log=False)
        return 10**low, 10**high
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _describe_fit(
    label: str, target: np.ndarray, prediction: np.ndarray, unit: str, shown: int
) -> str:
    labelled = int(np.count_nonzero(~np.isnan(target)))
    hidden = f", {labelled - shown} not shown" if labelled > shown else ""
    first = f"{label}: {counted(labelled, 'crystal')}{hidden}"
    fit = ", ".join(fit_words(target, prediction, unit))
    return f"{first}\n{fit}" if fit else first


def _label_log_axis(axis: Axis) -> None:
    """Writes ticks as plain numbers, and more than the powers of ten where the axis is short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
