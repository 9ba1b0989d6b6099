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
    """

    id: str
    property: str
    unit: str
    value: float
    low: float
    high: float
    reason: str


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
        rows: of all crystals and properties.
        models: that predicted.
        output: file with all of it.
        command: that made it.
        complete: whether the rows are all that the file has.
    """
    properties = dict.fromkeys((row.property, row.unit) for row in rows)
    of = [[row for row in rows if (row.property, row.unit) == one] for one in properties]
    lead: list[Content] = [_headline(each) for each in of if each]
    lead.append(paragraph(f"{_PREDICTED_BY}{', '.join(models)}; all of it is in {output}."))
    made: Mapping[str, Any] = {"models": list(models), "output": output}
    sections = [
        ("Predictions", [part for i, each in enumerate(of) for part in _section(each, i)]),
        ("Not predicted", _failures(rows)),
        ("How it was made", settings_section(made, {}, command)),
    ]
    names = ", ".join(name for name, _ in properties)
    of_all = "" if complete else "the first "
    title = f"{names} of {of_all}{counted(len({row.id for row in rows}), 'crystal')}"
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
    some = f"the first {_LISTED} of " if len(known) > _LISTED else ""
    listing = folded(f"All predictions: {some}{len(known)}", table(header, lines))
    return [points.element(), figure, listing]


def _failures(rows: Sequence[Predicted]) -> list[Content]:
    """Returns the crystals that could not be predicted, each once."""
    failed = {row.id: row.reason for row in rows if row.reason}
    if not failed:
        return []
    kinds = Counter(reason.partition(":")[0] for reason in failed.values())
    lines = [[id, reason] for id, reason in list(failed.items())[:_LISTED]]
    return [
        table(["reason", "crystals"], [[kind, str(n)] for kind, n in kinds.items()]),
        folded(f"Crystals: {len(failed)}", table(["crystal", "reason"], lines, texts=2)),
    ]
