"""Figures of a study; each function draws one file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from jaxmat.report.plots import name_ticks, save_figure
from jaxmat.report.study.analysis import Relative, Setting
from jaxmat.report.study.layout import Source, percent, source_label
from jaxmat.report.study.published import Comparison
from jaxmat.report.tables import with_unit

_DOTS_PER_INCH = 120
# Told apart with any kind of colour vision (Okabe and Ito, 2008), without the yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
_MARKERS = "os^Dvp*X"
# Changes from here on have the strongest colour of a heat map.
_STRONGEST = 0.5
_LONGEST = 24  # letters of a source beside a heat map


class Line(NamedTuple):
    """Points of a line: position on the axis, error, and its spread (NaN where there is none)."""

    x: Sequence[float]
    error: Sequence[float]
    spread: Sequence[float]


class Panel(NamedTuple):
    """Lines of one property, by label, in its unit; the error of a constant, NaN for none."""

    unit: str
    lines: Mapping[str, Line]
    constant: float


File = str | os.PathLike[str]


def heat_maps(
    path: File,
    changes: Mapping[Setting, Relative],
    rows: Sequence[Source],
    columns: Sequence[str],
    sizes: Sequence[int],
) -> None:
    """Draws changes relative to scratch, sources against targets, one map a label count.

    Args:
        path: PNG file to write.
        changes: of the settings of one variant.
        rows: sources.
        columns: targets.
        sizes: label counts.
    """
    names = [source_label(source) for source in rows]
    room = 0.6 + 0.08 * min(max(map(len, names)), _LONGEST)  # beside a map, for names
    width, height = room + 0.75 * len(columns), 1.2 + 0.42 * len(rows)
    figure, panels = _new_figure(len(sizes), 2 if len(columns) > 3 else 3, (width, height), 1.0)
    at = {(s.source, s.source_size, s.target, s.target_size): c for s, c in changes.items()}
    for axes, size in zip(panels, sizes, strict=True):
        cells = [[at.get((*source, target, size)) for target in columns] for source in rows]
        _heat_map(axes, cells)
        axes.set_title(f"{size} labels", fontsize="medium")
        name_ticks(axes.xaxis, columns, most=max(9, 28 // len(columns)))
        name_ticks(axes.yaxis, names, most=_LONGEST)
        axes.set(xlabel="fine-tuned on", ylabel="pre-trained on")
    bar = figure.colorbar(
        panels[0].images[0],
        ax=panels,
        location="bottom",
        fraction=0.05,
        aspect=50,
        shrink=min(1.0, 6 / figure.get_figwidth()),
        ticks=np.linspace(-0.4, 0.4, 5),
        extend="both",
        format=FuncFormatter(lambda change, _: percent(change) if change else "0"),
    )
    bar.set_label("test MAE relative to training from scratch")
    save_figure(figure, path, _DOTS_PER_INCH)


def _heat_map(axes: Axes, cells: Sequence[Sequence[Relative | None]]) -> None:
    values = np.array([[cell.change if cell else np.nan for cell in row] for row in cells])
    colors = colormaps["RdBu_r"].with_extremes(bad="#eeeeee")
    axes.imshow(values, cmap=colors, norm=Normalize(-_STRONGEST, _STRONGEST), aspect="auto")
    axes.set_xticks(np.arange(1, values.shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, values.shape[0]) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is None:
                continue
            clear = cell.low > 0 or cell.high < 0
            axes.text(
                x,
                y,
                percent(cell.change),
                ha="center",
                va="center",
                fontsize=8.5,
                fontweight="bold" if clear else "normal",
                color="white" if abs(cell.change) > 0.7 * _STRONGEST else "black",
            )


def line_panels(path: File, panels: Mapping[str, Panel], xlabel: str) -> None:
    """Draws test errors against a positive quantity, both logarithmic, one panel a title.

    Args:
        path: PNG file to write.
        panels: title → panel.
        xlabel: what the lines go along.
    """
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel.lines))
    figure, all_axes = _new_figure(len(panels), 3, (3.7, 3.1), 0.3 + 0.05 * len(labels))
    ticks = sorted(
        {x for panel in panels.values() for line in panel.lines.values() for x in line.x}
    )
    crowded = min(np.diff(np.log(ticks)), default=np.inf) < 0.05 * np.log(ticks[-1] / ticks[0])
    for axes, (title, panel) in zip(all_axes, panels.items(), strict=True):
        for label, line in panel.lines.items():
            axes.errorbar(line.x, line.error, line.spread, label=label, **_style(label, labels))
        if np.isfinite(panel.constant):
            axes.axhline(
                panel.constant, color="0.6", linestyle=":", label="median of the training labels"
            )
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel=xlabel, ylabel=with_unit("test MAE", panel.unit))
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.tick_params(axis="x", labelsize="small", labelrotation=45 if crowded else 0)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        _plain_log_axis(axes)
        _open(axes)
    _legend(figure)
    save_figure(figure, path, _DOTS_PER_INCH)


def strategies(
    path: File,
    ratios: Mapping[int, Mapping[str, Mapping[str, float]]],
    reference: str,
) -> None:
    """Draws errors of strategies relative to one of them: every pair, and their geometric mean.

    Args:
        path: PNG file to write.
        ratios: label count → strategy → pair of properties → error over that of the reference.
        reference: the strategy that they are relative to.
    """
    names = list(dict.fromkeys(name for by_name in ratios.values() for name in by_name))
    pairs = list(
        dict.fromkeys(p for by_name in ratios.values() for of in by_name.values() for p in of)
    )
    values = [r for by_name in ratios.values() for of in by_name.values() for r in of.values()]
    low, high = min(*values, 1.0), max(*values, 1.0)
    height = 0.3 * len(names) + 1.2
    figure, all_axes = _new_figure(len(ratios), 3, (3.8, height), 0.3 + 0.05 * len(pairs))
    for axes, (size, by_name) in zip(all_axes, ratios.items(), strict=True):
        axes.axvline(1, color="0.6", linewidth=1)
        for y, name in enumerate(names):
            of = by_name.get(name, {})
            for pair, ratio in of.items():
                color = _COLORS[pairs.index(pair) % len(_COLORS)]
                axes.plot(ratio, y, "o", color=color, alpha=0.8, markersize=5, label=pair)
            if of:
                mean = np.exp(np.mean(np.log(list(of.values()))))
                label = "geometric mean"
                axes.plot(mean, y, "|", color="black", markersize=16, label=label)
        axes.set_title(f"{size} labels", fontsize="medium")
        axes.set(xscale="log", xlim=(low / 1.1, high * 1.1), ylim=(len(names) - 0.5, -0.5))
        axes.set_xlabel(f"test MAE relative to {reference}")
        name_ticks(axes.yaxis, names)
        axes.xaxis.set_major_locator(
            MaxNLocator(4) if high < 4 * low else LogLocator(subs=(1, 2, 5))
        )
        axes.xaxis.set_major_formatter("×{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        _open(axes)
    _legend(figure)
    save_figure(figure, path, _DOTS_PER_INCH)


def beside_published(path: File, comparisons: Sequence[Comparison]) -> None:
    """Draws errors of a study against published ones, both in published scaled units."""
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(c.setting.target for c in comparisons))
    for at, name in enumerate(names):
        of = [c for c in comparisons if c.setting.target == name]
        axes.errorbar(
            [c.published_mae_scaled for c in of],
            [c.test_mae_scaled for c in of],
            xerr=[c.published_mae_scaled_spread for c in of],
            yerr=[c.test_mae_scaled_spread for c in of],
            fmt=_MARKERS[at % len(_MARKERS)],
            color=_COLORS[at % len(_COLORS)],
            markersize=5,
            elinewidth=0.7,
            alpha=0.8,
            label=name,
        )
    axes.set(xscale="log", yscale="log")
    low, high = (f(*axes.get_xlim(), *axes.get_ylim()) for f in (min, max))
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set(xlabel="published test MAE (scaled)", ylabel="test MAE of this study (scaled)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    _open(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    save_figure(figure, path, _DOTS_PER_INCH)


def _new_figure(
    panels: int, across: int, size: tuple[float, float], more: float
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with so many panels, at most so many in a row.

    Args:
        panels: their number.
        across: most panels in a row.
        size: width and height of a panel, in inches.
        more: height of what stands under them all, in inches.
    """
    across = min(panels, across)
    down = -(-panels // across)
    figure = Figure(figsize=(max(across * size[0], 5), down * size[1] + more))
    figure.set_layout_engine("constrained", h_pad=0.1)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.remove()
    return figure, list(axes[:panels])


def _style(label: str, labels: Sequence[str]) -> dict[str, Any]:
    common: dict[str, Any] = {"linewidth": 1.2, "elinewidth": 0.8, "markersize": 4, "capsize": 2}
    if label.startswith("scratch"):
        at = [other for other in labels if other.startswith("scratch")].index(label)
        return {**common, "color": "black", "linestyle": "--", "marker": _MARKERS[at % 8]}
    at = [other for other in labels if not other.startswith("scratch")].index(label)
    turn = at // len(_COLORS)
    return {
        **common,
        "color": _COLORS[at % len(_COLORS)],
        "marker": _MARKERS[(at + turn) % len(_MARKERS)],
    }


def _plain_log_axis(axes: Axes) -> None:
    """Writes errors as plain numbers, and more than the powers of ten where the axis is short."""
    low, high = axes.get_ylim()
    subs: tuple[float, ...] = (1, 1.5, 2, 3, 5, 7) if high < 8 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(LogLocator(subs=subs if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend(figure: Figure) -> None:
    """Puts one legend for all panels under them, each label once."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    width = 0.7 + 0.07 * max(map(len, entries))  # of an entry with its mark, in inches
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(entries), int(figure.get_figwidth() / width))),
        frameon=False,
        fontsize="small",
    )
