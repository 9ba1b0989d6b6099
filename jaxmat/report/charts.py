"""Charts of a page: points and lines, of which each tells what it is when it is pointed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from jaxmat.report.html import data, element

_DIGITS = 6  # of a number in a page, more than a screen can show


class Points(NamedTuple):
    """Points that several charts of a page may show.

    Attributes:
        id: of its element in the page.
        series: names of the series.
        group: number of the series of each point, [points].
        columns: name → numbers, NaN where missing, [points].
        names: of the points, none where they have none.
    """

    id: str
    series: Sequence[str]
    group: Sequence[int]
    columns: Mapping[str, np.ndarray]
    names: Sequence[str] = ()

    def element(self) -> Element:
        """Returns them for the script of the page; they stand in it once."""
        content = {
            "series": list(self.series),
            "group": list(self.group),
            "columns": {name: _numbers(values) for name, values in self.columns.items()},
            "names": list(self.names) or None,
        }
        return data(content, id=self.id)


class Axis(NamedTuple):
    """What goes along an axis.

    Attributes:
        column: of the points.
        label: what stands beside the axis.
        log: whether it is logarithmic.
        range: values that are on it in any case.
    """

    column: str
    label: str
    log: bool = False
    range: Sequence[float] = ()


class Reference(NamedTuple):
    """A dashed line.

    Attributes:
        along: "x" or "y": at a value of this axis; "equal": where both are equal, on a square.
        value: there, 0 for "equal".
        name: in the legend, "" for none.
    """

    along: str
    value: float = 0.0
    name: str = ""


class Word(NamedTuple):
    """What the word on a point says: a name, the numbers of one or two columns, and a unit."""

    name: str
    columns: Sequence[str]
    unit: str = ""


def chart(
    points: Points,
    x: Axis,
    y: Axis,
    caption: str,
    words: Sequence[Word],
    *,
    legend: Sequence[str] = (),
    references: Sequence[Reference] = (),
    interval: tuple[str, str] | None = None,
    line: bool = False,
    square: bool = False,
) -> Element:
    """Returns a chart; its points have to be in the page, too.

    Args:
        points: what is shown.
        x: horizontal axis.
        y: vertical axis.
        caption: under it.
        words: on a point, under its name and that of its series.
        legend: more words on each series than its name.
        references: lines to compare with.
        interval: columns of the ends of an interval along y.
        line: whether the points of a series are joined.
        square: whether both axes have the same limits.
    """
    low, high = interval or (None, None)
    spec: dict[str, Any] = {
        "data": points.id,
        "x": x._asdict(),
        "y": y._asdict(),
        "low": low,
        "high": high,
        "legend": list(legend),
        "references": [{one.along: one.value, "name": one.name} for one in references],
        "tip": [word._asdict() for word in words],
        "line": line,
        "square": square,
    }
    return element(
        "figure",
        data(spec),
        element("div", class_="legend"),
        element("div", class_="plot"),
        element("noscript", "This chart needs JavaScript."),
        element("figcaption", caption),
        class_="chart",
    )


def _numbers(values: np.ndarray) -> list[float | None]:
    """Returns numbers as JSON can hold them, short."""
    return [
        float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()
    ]
