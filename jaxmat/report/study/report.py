"""The report of a study: one page that needs nothing but itself, its figures and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from jaxmat.errors import counted
from jaxmat.report.html import element, page
from jaxmat.report.rows import write_rows
from jaxmat.report.settings import settings_section
from jaxmat.report.study import analysis, layout, listings, sections
from jaxmat.report.study.analysis import Relative, Setting, Summary
from jaxmat.report.study.published import Comparison, compare_with_published, read_published
from jaxmat.report.study.results import CellResult
from jaxmat.report.study.sections import Study
from jaxmat.runtime.durations import in_words


def write_report(
    rows: Sequence[CellResult],
    folder: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    published: Path | None = None,
    command: str = "",
) -> Path:
    """Writes report.html, figures/*.png, summary.csv and relative_to_scratch.csv.

    Args:
        rows: results of the cells, whatever their status.
        folder: of the study: `directory` of a row is relative to it, and the report goes there.
            PNG files of an earlier report are removed from its folder figures.
        title: of the page.
        settings: of the study, shown as they are.
        published: results.csv of the published runs, to stand beside; adds published.csv.
        command: that makes the study again.

    Returns:
        The page.

    Raises:
        UserError: the published results or a file of predictions cannot be read.
    """
    study = _analyse(rows, folder, published)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for old in figures.glob("*.png"):
        old.unlink()
    _write(folder / "summary.csv", Summary, study.summaries.values())
    _write(folder / "relative_to_scratch.csv", Relative, study.relative.values())
    if published is not None:
        _write(folder / "published.csv", Comparison, study.comparisons)
    contents = [
        ("Cells", listings.overview(study)),
        ("Gain over training from scratch", sections.gain(study)),
        ("What validation picks", listings.picks(study)),
        ("Learning curves", sections.learning_curves(study)),
        ("Strategies", sections.strategies(study)),
        ("Learning rates", sections.learning_rates(study)),
        ("Beside the published results", sections.published(study)),
        ("Predictions against labels", sections.parity(study)),
        ("Spread of samples and of seeds", listings.spread(study)),
        ("All test errors", listings.matrices(study)),
        ("Failures", listings.failures(study)),
        ("How it was made", settings_section(settings, {}, command)),
    ]
    file = folder / "report.html"
    lead = [*_headline(study.relative), _lead(rows)]
    text = page(title, lead, [part for part in contents if part[1]])
    file.write_text(text, encoding="utf-8")
    return file


def _analyse(rows: Sequence[CellResult], folder: Path, published: Path | None) -> Study:
    groups = analysis.by_setting(rows)
    summaries = analysis.summarize(groups)
    return Study(
        rows=rows,
        folder=folder,
        groups=groups,
        summaries=summaries,
        relative=analysis.relative_to_scratch(groups, analysis.read_test_errors(folder, rows)),
        comparisons=compare_with_published(groups, read_published(published))
        if published is not None
        else [],
    )


def _write(
    file: Path,
    kind: type[Summary] | type[Relative] | type[Comparison],
    rows: Iterable[Summary | Relative | Comparison],
) -> None:
    """Writes rows whose first field is a setting, which becomes columns of its own."""
    header = [*Setting._fields, *kind._fields[1:]]
    write_rows(file, header, ([*row.setting, *row[1:]] for row in rows))


def _headline(relative: Mapping[Setting, Relative]) -> list[Element]:
    """Returns what fine-tuning was worth in one line, nothing where there is nothing to compare."""
    changes = [one.change for one in relative.values()]
    if not changes:
        return []
    return [
        element(
            "p",
            "Test MAE of fine-tuned networks: ",
            element("strong", layout.percent(float(np.median(changes)))),
            f" against random weights, median of {len(changes)} comparisons",
            class_="headline",
        )
    ]


def _lead(rows: Sequence[CellResult]) -> Element:
    done = [row for row in rows if row.status == "done"]
    seconds = sum(row.seconds for row in done if math.isfinite(row.seconds))
    sources = {row.source for row in rows if row.source}
    counts = [
        (len({row.target for row in rows}), "target"),
        (len(sources), "source"),
        (len({row.target_size for row in rows}), "label count"),
        (len({row.trial for row in rows}), "trial"),
    ]
    words = ", ".join(counted(*count) for count in counts)
    took = f" They took {in_words(seconds)} together." if seconds else ""
    text = f"{len(done)} of {len(rows)} cells are done: {words}.{took}"
    return element("p", text, class_="lead")
