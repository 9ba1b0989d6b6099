"""The page of a run: what came out beside what is simple, each prediction, and how it was made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmat.errors import counted
from jaxmat.report import predicted
from jaxmat.report.charts import Axis, Points, Reference, Word, chart
from jaxmat.report.html import Content, Element, element, folded, page, paragraph, table
from jaxmat.report.predicted import PropertyResult
from jaxmat.report.settings import settings_section
from jaxmat.report.tables import format_change, format_number, format_quantity, with_unit

_LISTED = 100  # rows of a long table that a page shows


class Curve(NamedTuple):
    """Evaluations of a training, [evaluations] each.

    Attributes:
        progress: epochs, or steps.
        error: on the validation part, in the unit of a single property.
        loss: of the training part.
    """

    progress: np.ndarray
    error: np.ndarray
    loss: np.ndarray


class Weights(NamedTuple):
    """A part of the network: numbers in it, where they come from, and whether they train."""

    part: str
    numbers: int
    origin: str
    trained: str


class About(NamedTuple):
    """How a run was made.

    Attributes:
        findings: what was odd about its data.
        left_out: why crystals were left out → how many.
        rejected: id, place and reason of rows that could not be used.
        weights: where they come from; none for random ones.
        settings: of the run.
        versions: of programs, and the device.
        command: that made it.
        files: names of what lies beside the page.
    """

    findings: Sequence[str]
    left_out: Mapping[str, int]
    rejected: Sequence[Sequence[str]]
    weights: Sequence[Weights]
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    command: str
    files: Sequence[str]


def run_page(
    title: str,
    tested: Sequence[PropertyResult],
    curves: Mapping[str, Curve],
    progress: str,
    baseline: float | None,
    about: About,
    remarks: Sequence[str] = (),
    more: Sequence[tuple[str, list[Content]]] = (),
) -> str:
    """Returns the page of a run.

    Args:
        title: of the page.
        tested: properties, the first in full, others folded away.
        curves: name → validation errors of a training.
        progress: what the curves go along, "epoch" or "step".
        baseline: validation error of a constant, None where there is none.
        about: how the run was made.
        remarks: sentences under the result.
        more: further sections, shown first.
    """
    lead: list[Content] = [part for one in tested for part in headline(one, len(tested) > 1)]
    lead += [paragraph(text) for text in remarks]
    sections: list[tuple[str, list[Content]]] = [
        *more,
        ("Predictions", _each(tested, predicted.parity)),
        ("Intervals", _each(tested, predicted.intervals)),
        ("Worst predictions", _each(tested, predicted.worst)),
        ("Training", training(curves, tested, progress, baseline)),
        ("Data", data_section(tested, about)),
        ("Weights", weights_section(about.weights)),
        ("How it was made", settings_section(about.settings, about.versions, about.command)),
        ("Files", [element("ul", *(element("li", name) for name in about.files))]),
    ]
    return page(title, lead, [part for part in sections if part[1]])


def headline(one: PropertyResult, named: bool) -> list[Element]:
    """Returns the result in one line, with what is simple beside it.

    Args:
        one: the property.
        named: whether to say which it is.
    """
    count = sum(row.split == "test" and not math.isnan(row.target) for row in one.rows)
    of = f" of {one.name}" if named else ""
    first = element(
        "p",
        f"Test MAE{of} ",
        element("strong", format_quantity(one.mae, one.unit)),
        f" on {counted(count, 'crystal')}" if count else "",
        class_="headline",
    )
    beside = [
        element(
            "li",
            f"{name}: {format_quantity(mae, one.unit)}{_less(one.mae, mae)}",
        )
        for name, mae in one.baselines.items()
    ]
    return [first, element("ul", *beside, class_="beside")] if beside else [first]


def training(
    curves: Mapping[str, Curve],
    tested: Sequence[PropertyResult],
    progress: str,
    baseline: float | None,
) -> list[Content]:
    """Validation error and training loss against the progress of a training."""
    if not any(len(curve.progress) for curve in curves.values()):
        return []
    points = Points(
        "curves",
        list(curves),
        [number for number, curve in enumerate(curves.values()) for _ in curve.progress],
        {
            name: np.concatenate([getattr(curve, name) for curve in curves.values()])
            for name in Curve._fields
        },
    )
    one = tested[0] if len(tested) == 1 else None
    error = with_unit("validation MAE", one.unit) if one else "validation MAE relative to median"
    unit = one.unit if one and one.unit != "1" else ""
    least = [
        f"{name}: least {format_number(float(np.nanmin(curve.error)))}"
        if np.isfinite(curve.error).any()
        else name
        for name, curve in curves.items()
    ]
    words = [Word(progress, ["progress"]), Word("error", ["error"], unit), Word("loss", ["loss"])]
    x = Axis("progress", progress, range=(0.0,))
    constant = [Reference("y", baseline, "median of the training labels")] if baseline else []
    charts = [
        chart(
            *(points, x, Axis("error", error, log=True)),
            "Error on the validation part, which chooses the checkpoint.",
            words,
            legend=least,
            references=constant,
            line=True,
        ),
        chart(
            *(points, x, Axis("loss", "training loss", log=True)),
            "Loss on the training part, mean since the point before, in the network's own units.",
            words,
            line=True,
        ),
    ]
    return [points.element(), element("div", *charts, class_="pictures")]


def data_section(tested: Sequence[PropertyResult], about: About) -> list[Content]:
    """What the run has seen, what was odd about it, and what was left out."""
    rows = []
    for one in tested:
        for part in dict.fromkeys(row.split for row in one.rows):
            labels = np.array([row.target for row in one.rows if row.split == part])
            known = labels[np.isfinite(labels)]
            ends = np.quantile(known, [0, 0.5, 1]) if known.size else []
            numbers = [format_number(float(value)) for value in ends] or ["–"] * 3
            rows.append([with_unit(one.name, one.unit), part, str(known.size), *numbers])
    header = ["property", "part", "labels", "least", "median", "greatest"]
    content: list[Content] = [table(header, rows, texts=2)]
    content += [element("pre", text) for text in about.findings]
    reasons = Counter(reason.partition(":")[0] for *_, reason in about.rejected)
    left_out = {**about.left_out, **reasons}
    if left_out:
        lines = [[reason.replace("_", " "), str(n)] for reason, n in left_out.items() if n]
        content.append(table(["left out", "crystals"], lines))
    if about.rejected:
        shown = [list(row) for row in about.rejected[:_LISTED]]
        of = f"the first {_LISTED} of " if len(about.rejected) > _LISTED else ""
        title = f"Rows that could not be used: {of}{len(about.rejected)}"
        content.append(folded(title, table(["id", "place", "reason"], shown, texts=3)))
    if not (about.findings or left_out):
        content.append(paragraph("Nothing odd was noticed, and nothing was left out."))
    return content


def weights_section(weights: Sequence[Weights]) -> list[Content]:
    """What was copied, is new, is frozen and trains."""
    if not weights:
        return []
    rows = [[one.part, one.origin, one.trained, f"{one.numbers:,}"] for one in weights]
    return [table(["part of the network", "weights", "training", "numbers"], rows, texts=3)]


def _each(tested: Sequence[PropertyResult], section: Any) -> list[Content]:
    """Returns a section of each property: as it is for one, of several all but the first folded."""
    contents = [(one, section(one, f"points-{i}")) for i, one in enumerate(tested)]
    contents = [(one, content) for one, content in contents if content]
    if len(tested) == 1:
        return contents[0][1] if contents else []
    return [folded(one.name, *content, opened=i == 0) for i, (one, content) in enumerate(contents)]


def _less(mae: float, baseline: float) -> str:
    if not (baseline > 0 and math.isfinite(mae)):
        return ""
    return f" ({format_change(mae / baseline - 1)}\u00a0%)".replace("-", "−")
