"""Predictions of one property on a page: against the labels, their intervals, and the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmat.errors import counted
from jaxmat.report.charts import Axis, Points, Reference, Word, chart
from jaxmat.report.html import Content, Element, element, paragraph, table
from jaxmat.report.plots import fit_words
from jaxmat.report.predictions import Prediction
from jaxmat.report.tables import format_number, format_quantity, with_unit

_WORST = 10
_PARTS = ("test", "validation", "train")  # the first lies on top


class PropertyResult(NamedTuple):
    """What a run predicts of one property.

    Attributes:
        name: of the property.
        unit: of the property, "1" if it has none.
        log: whether it was learned on the logarithm.
        level: probability of the intervals, None where it has none.
        mae: of the test part, in `unit`.
        baselines: name → test MAE of something simple, in `unit`.
        rows: predictions of all parts.
        note: a sentence on how they were made, "" for none.
    """

    name: str
    unit: str
    log: bool
    level: float | None
    mae: float
    baselines: Mapping[str, float]
    rows: Sequence[Prediction]
    note: str = ""


def parity(one: PropertyResult, id: str) -> list[Content]:
    """Predictions against labels, and their errors; with the points of the page."""
    found = dict.fromkeys(row.split for row in one.rows)
    parts = sorted(found, key=lambda part: _PARTS.index(part) if part in _PARTS else len(_PARTS))
    rows = {part: [row for row in one.rows if row.split == part] for part in parts}
    points = parity_points(id, rows)
    if not points.group:
        return []
    caption = f"Predictions against labels; on the line both are equal. {one.note}".rstrip()
    error = chart(
        points,
        Axis("prediction", with_unit(f"prediction of {one.name}", one.unit), one.log),
        Axis("error", with_unit("prediction − label", one.unit)),
        "Errors against predictions.",
        _words(one.unit, one.level),
        references=[Reference("y", 0.0)],
    )
    against = parity_chart(points, rows, one.unit, one.log, caption, one.level)
    return [points.element(), element("div", against, error, class_="pictures")]


def parity_points(id: str, rows: Mapping[str, Sequence[Prediction]]) -> Points:
    """Returns labelled predictions as points of a page.

    Args:
        id: of their element in the page.
        rows: name of a series → its predictions.
    """
    labelled = [
        (number, row)
        for number, series in enumerate(rows.values())
        for row in series
        if not math.isnan(row.target)
    ]
    columns = {
        name: np.array([getattr(row, name) for _, row in labelled], float)
        for name in ("target", "prediction", "low", "high")
    }
    columns["error"] = columns["prediction"] - columns["target"]
    group = [number for number, _ in labelled]
    return Points(id, list(rows), group, columns, [row.id for _, row in labelled])


def parity_chart(
    points: Points,
    rows: Mapping[str, Sequence[Prediction]],
    unit: str,
    log: bool,
    caption: str,
    level: float | None = None,
) -> Element:
    """Returns predictions against labels, with MAE and R² of each series in the legend.

    Args:
        points: from `parity_points`.
        rows: name of a series → its predictions.
        unit: of the property, "1" if it has none.
        log: logarithmic axes, for a positive property with a long tail.
        caption: under the chart.
        level: probability of the intervals.
    """
    both = np.minimum(points.columns["target"], points.columns["prediction"])
    if log and (hidden := int(np.sum(both <= 0))):
        caption += f" {counted(hidden, 'crystal')} with values up to zero cannot be shown on it."
    return chart(
        points,
        Axis("target", with_unit("label", unit), log),
        Axis("prediction", with_unit("prediction", unit), log),
        caption,
        _words(unit, level),
        legend=[_fit(name, series, unit) for name, series in rows.items()],
        references=[Reference("equal")],
        interval=("low", "high"),
        square=True,
    )


def intervals(one: PropertyResult, id: str) -> list[Content]:
    """How many test labels lie in their intervals, and how far out the others are."""
    rows = [row for row in _tested(one) if math.isfinite(row.low) and math.isfinite(row.high)]
    if not rows or one.level is None:
        return []
    ratio = np.array([_times(row) for row in rows])
    held, width = int(np.sum(ratio <= 1)), np.median([row.high - row.low for row in rows])
    low, high = wilson(held, len(rows))
    level = _percent(one.level)
    share = np.arange(1, len(rows) + 1) / len(rows)
    order = np.argsort(ratio)
    points = Points(
        f"{id}-intervals",
        ["test"],
        [0] * len(rows),
        {"ratio": ratio[order], "share": 100 * share},
        [rows[i].id for i in order],
    )
    share_held, low_share, high_share = map(_percent, (held / len(rows), low, high))
    text = (
        f"{held} of {len(rows)} test labels lie in their {level} interval: {share_held}, for all "
        f"crystals like these between {low_share} and {high_share} (95\u00a0% confidence). "
        f"The median width is {format_quantity(float(width), one.unit)}."
    )
    caption = (
        "Share of test crystals whose error is at most so many times the distance from the "
        f"prediction to the end of its interval. At 1 it should be {level}."
    )
    figure = chart(
        points,
        Axis("ratio", "error / distance to the end of the interval", log=True, range=(0.1, 10.0)),
        Axis("share", "test crystals (%)", range=(0.0, 100.0)),
        caption,
        [Word("error: times the distance", ["ratio"]), Word("crystals up to here", ["share"], "%")],
        references=[Reference("x", 1.0), Reference("y", 100 * one.level, level)],
        line=True,
    )
    return [paragraph(text), points.element(), element("div", figure, class_="pictures")]


def worst(one: PropertyResult, id: str) -> list[Content]:
    """The test crystals with the largest errors."""
    rows = sorted(_tested(one), key=lambda row: -abs(row.prediction - row.target))[:_WORST]
    if not rows:
        return []
    lines = [
        [
            row.id,
            format_number(row.target),
            format_number(row.prediction),
            ("+" if row.prediction > row.target else "")
            + format_number(row.prediction - row.target),
            "–"
            if math.isnan(row.low)
            else f"{format_number(row.low)} to {format_number(row.high)}",
        ]
        for row in rows
    ]
    named = [with_unit(name, one.unit) for name in ("label", "prediction", "error", "interval")]
    return [table(["crystal", *named], lines)]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a probability (Wilson 1927).

    Args:
        successes: how often something happened.
        n: of so many tries, at least one.
    """
    z2 = 1.959964**2
    middle = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (successes * (n - successes) / n + z2 / 4)) / (n + z2)
    return middle - half, middle + half


def _tested(one: PropertyResult) -> list[Prediction]:
    return [r for r in one.rows if r.split == "test" and math.isfinite(r.prediction - r.target)]


def _times(row: Prediction) -> float:
    """Returns the error over the distance from the prediction to the interval's end on its side."""
    end = row.high if row.target > row.prediction else row.low
    error, distance = abs(row.target - row.prediction), abs(end - row.prediction)
    return error / distance if distance > 0 else math.inf if error else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"  # on one line


def _words(unit: str, level: float | None) -> list[Word]:
    """Returns what a point tells of its crystal."""
    unit = "" if unit == "1" else unit
    return [
        Word("label", ["target"], unit),
        Word("prediction", ["prediction"], unit),
        Word(f"{_percent(level)} interval" if level else "interval", ["low", "high"], unit),
        Word("error", ["error"], unit),
    ]


def _fit(name: str, rows: Sequence[Prediction], unit: str) -> str:
    target, prediction = (np.array([getattr(r, n) for r in rows]) for n in ("target", "prediction"))
    labelled = counted(int(np.count_nonzero(~np.isnan(target))), "crystal")
    return ", ".join([f"{name}: {labelled}", *fit_words(target, prediction, unit)])
