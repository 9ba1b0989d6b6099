"""The page of predictions without labels: what was predicted, how sure, and what could not be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmat.errors import counted
from jaxmat.report.charts import Axis, Points, Word, chart
from jaxmat.report.html import Content, element, folded, is_page, page, paragraph, table
from jaxmat.report.settings import settings_section
from jaxmat.report.tables import format_number, format_quantity, with_unit

_LISTED = 1000  # crystals in a table of a page
_PREDICTED_BY = "Predicted by "


class Predicted(NamedTuple):
    """A prediction; numbers in `unit`, NaN where they are not known.

    Attributes:
        id: of the crystal.
        property: that is predicted.
        unit: of the property, "1" if it has none.
        value: the prediction.
        low: lower end of its interval.
        high: upper end.
        reason: why there is none, "" where there is one.
        remark: what is to be known about the crystal, "" for nothing.
    """

    id: str
    property: str
    unit: str
    value: float
    low: float
    high: float
    reason: str
    remark: str = ""


def is_forecast(beginning: bytes) -> bool:
    """Whether a file that begins so is a page of predictions, not that of a run."""
    return is_page(beginning) and f"<p>{_PREDICTED_BY}".encode() in beginning


def forecast_page(
    rows: Sequence[Predicted],
    models: Sequence[str],
    output: str,
    command: str,
    complete: bool = True,
) -> str:
    """Returns the page of predictions.

    Args:
        rows: of all crystals and properties, for each crystal one of each property, in order.
        models: that predicted.
        output: file with all of it.
        command: that made it.
        complete: whether the rows are all that the file has.
    """
    properties = dict.fromkeys((row.property, row.unit) for row in rows)
    of = [[row for row in rows if (row.property, row.unit) == one] for one in properties]
    lead: list[Content] = [_headline(each) for each in of if each]
    some = "" if complete else f"the first {counted(len(rows), 'prediction')} are shown, "
    lead.append(paragraph(f"{_PREDICTED_BY}{', '.join(models)}; {some}all of it is in {output}."))
    made: Mapping[str, Any] = {"models": list(models), "output": output}
    sections = [
        ("Predictions", [part for i, each in enumerate(of) for part in _section(each, i)]),
        ("Not predicted", _failures(of)),
        ("Remarks", _told_of(of, "remark")),
        ("How it was made", settings_section(made, {}, command)),
    ]
    names = ", ".join(name for name, _ in properties)
    of_all = "" if complete else "the first "
    crystals = max(map(len, of), default=0)  # ids of several tables may be the same
    title = f"{names} of {of_all}{counted(crystals, 'crystal')}"
    return page(title, lead, [part for part in sections if part[1]])


def _headline(rows: Sequence[Predicted]) -> Content:
    """Returns the range of the predictions in one line."""
    known = [row for row in rows if not row.reason]
    name, unit = rows[0].property, rows[0].unit
    if not known:
        return element("p", f"{name}: nothing could be predicted", class_="headline")
    if len(known) == 1:
        (one,) = known
        value = element("strong", format_quantity(one.value, unit))
        interval = f", interval {_interval(one)}" if math.isfinite(one.low) else ""
        return element("p", f"{name}: ", value, interval, class_="headline")
    least, greatest = (f(row.value for row in known) for f in (min, max))
    return element(
        "p",
        f"{name}: ",
        element("strong", f"{format_number(least)} to {format_quantity(greatest, unit)}"),
        f" for {counted(len(known), 'crystal')}",
        class_="headline",
    )


def _interval(row: Predicted) -> str:
    if math.isnan(row.low):
        return "–"
    return f"{format_number(row.low)} to {format_number(row.high)}"


def _section(rows: Sequence[Predicted], number: int) -> list[Content]:
    """Returns the predictions of one property, drawn in order and listed."""
    known = sorted((row for row in rows if not row.reason), key=lambda row: row.value)
    if not known:
        return []
    name, unit = known[0].property, known[0].unit
    columns = {key: np.array([getattr(r, key) for r in known]) for key in ("value", "low", "high")}
    rank = np.arange(1, len(known) + 1)
    ids = [row.id for row in known]
    points = Points(f"points-{number}", [name], [0] * len(known), {"rank": rank, **columns}, ids)
    shown_unit = "" if unit == "1" else unit
    words = [
        Word("prediction", ["value"], shown_unit),
        Word("interval", ["low", "high"], shown_unit),
    ]
    figure = chart(
        *(points, Axis("rank", "crystals, the least first"), Axis("value", with_unit(name, unit))),
        "Predictions in order; a point has its interval where there is one.",
        words,
        interval=("low", "high"),
    )
    lines = [
        [row.id, format_number(row.value), _interval(row)]
        for row in [row for row in rows if not row.reason][:_LISTED]
    ]
    header = ["crystal", with_unit(name, unit), with_unit("interval", unit)]
    listing = folded(f"All predictions: {_of_all(len(known))}", table(header, lines))
    return [points.element(), figure, listing]


def _failures(of: Sequence[Sequence[Predicted]]) -> list[Content]:
    """Returns the crystals that could not be predicted, each once."""
    kinds = Counter(text.partition(":")[0] for _, text in _told(of, "reason").values())
    if not kinds:
        return []
    counts = table(["reason", "crystals"], [[kind, str(n)] for kind, n in kinds.items()])
    return [counts, *_told_of(of, "reason")]


def _told_of(of: Sequence[Sequence[Predicted]], field: str) -> list[Content]:
    """Returns the crystals of which something is told, with their places among the inputs."""
    told = _told(of, field)
    if not told:
        return []
    lines = [[str(place), *told[place]] for place in sorted(told)[:_LISTED]]
    listing = table(["input", "crystal", field], lines, texts=3)
    return [folded(f"Crystals: {_of_all(len(told))}", listing)]


def _told(of: Sequence[Sequence[Predicted]], field: str) -> dict[int, tuple[str, str]]:
    """Returns id and text of each crystal with a text, by its place among the inputs, from 1.

    Args:
        of: rows of each property.
        field: "reason" or "remark"; where properties differ, the text of the first.
    """
    told: dict[int, tuple[str, str]] = {}
    for rows in of:
        for place, row in enumerate(rows, 1):
            if text := getattr(row, field):
                told.setdefault(place, (row.id, text))
    return told


def _of_all(n: int) -> str:
    """Returns how many rows there are, and how many of them a table has."""
    return f"the first {_LISTED} of {n}" if n > _LISTED else str(n)
