"""The page of results: its words are in page.md, its numbers come from the rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.few_labels import CONSTANT, PICKED
from benchmarks.published import KINDS, OF_ANY, Mark, Marks
from benchmarks.results.claims import NO_CLAIM, Compared, Saved, compare, labels_saved
from benchmarks.results.plan import AIMS, COMPARISONS, ELSEWHERE, SAVINGS, WANTED, Aim, Wanted
from benchmarks.results.rows import Draw, Row
from jaxmat.errors import UserError
from jaxmat.report.study.layout import interval, percent
from jaxmat.report.tables import Cell, format_number, format_table

WORDS = Path(__file__).with_name("page.md")
_PLACE = re.compile(r"^\{\{ (\w+) ?(\w*) \}\}$", re.MULTILINE)
_NOTHING = "Nothing of this has been run."

Table = list[dict[str, Cell]]


def make_page(rows: Sequence[Row], marks: Marks, words: str) -> str:
    """Returns the page in Markdown.

    Args:
        rows: all results.
        marks: the published errors.
        words: the page with places such as `{{ errors few_labels }}`, each a line.

    Raises:
        UserError: a place that is not known, or rows of an item without a place.
    """
    compared = compare(rows, COMPARISONS, marks)
    blocks: dict[str, Callable[[str], str]] = {
        "picks": lambda _: picks(rows, marks),
        "claims": lambda _: claims(compared),
        "errors": lambda item: errors([row for row in rows if row.item == item], marks),
        "comparisons": lambda item: comparisons(
            [c for c in compared if c.comparison.item == item], marks
        ),
        "aims": lambda _: aims(rows, marks),
        "saved": lambda _: saved(labels_saved(rows, SAVINGS, marks, compared)),
        "worse": lambda _: worse(compared),
        "missing": lambda _: missing(rows),
        "sources": lambda _: sources(rows),
    }
    places = _PLACE.findall(words)
    shown = {item for block, item in places if block == "errors"}
    problems = [f"there is no block {block!r}" for block, _ in places if block not in blocks]
    problems += [
        f"rows of the item {item!r} have no place"
        for item in dict.fromkeys(row.item for row in rows)
        if item not in shown
    ]
    if problems:
        raise UserError(f"The words of the page do not fit its rows: {'; '.join(problems)}.")
    page = _PLACE.sub(lambda place: blocks[place[1]](place[2]), words)
    return re.sub(r"\n{3,}", "\n\n", page)


def picks(rows: Sequence[Row], marks: Marks) -> str:
    """Returns the errors of what was picked, by target and labels, published ones in brackets."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if (row.item, row.method) == ("few_labels", PICKED):
            found.setdefault(row.target, {}).setdefault(row.labels, []).append(row.scaled_mae)
    table: Table = []
    for target, own in found.items():
        line: dict[str, Cell] = {"target": target}
        for n in sorted(own):
            published = _best_published(target, n, marks)
            line[f"{n} labels"] = f"{np.mean(own[n]):.4f} ({published:.4f})"
        table.append(line)
    return format_table(table) if table else _NOTHING


def claims(compared: Sequence[Compared]) -> str:
    """Returns the main claims that hold."""
    lines = [
        f"- {_in_words(c)}: **{c.verdict}**"
        for c in sorted(compared, key=lambda c: (c.target, c.labels))
        if c.comparison.main and c.verdict in ("better", "worse")
    ]
    return "\n".join(lines) or "None so far."


def errors(rows: Sequence[Row], marks: Marks) -> str:
    """Returns the table of an item: a line for each target, number of labels and method."""
    groups: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row.target, row.labels), {}).setdefault(row.method, []).append(row)
    table: Table = []
    for (target, labels), methods in sorted(groups.items(), key=lambda group: group[0]):
        for method, own in methods.items():
            draws = by_draw(own)
            line: dict[str, Cell] = {
                "target": target,
                "labels": labels,
                "method": method,
                "trials": len(draws),
                "MAE": [float(np.mean([r.mae for r in each])) for each in draws.values()],
                "unit": own[0].unit,
                "half ranges": _scaled(draws),
                "time / s": _mean_time(own),
            }
            for kind in KINDS:
                mark = marks.get((target, labels, kind))
                line[kind] = _published(mark, len(draws)) if mark else None
            table.append(line)
        for name, error in ELSEWHERE.get((target, labels), {}).items():
            of = "half ranges" if _scaled(by_draw(rows)) else "MAE"
            table.append(
                {"target": target, "labels": labels, "method": f"published: {name}", of: error}
            )
    return format_table(_without_blank(table)) if table else _NOTHING


def comparisons(compared: Sequence[Compared], marks: Marks) -> str:
    """Returns the table of the comparisons of an item."""
    table: Table = [
        {
            "target": c.target,
            "labels": c.labels,
            "method": c.comparison.method,
            "against": _named(c.comparison.baseline, c.target, c.labels, marks),
            "trials": c.trials,
            "change of the MAE": percent(c.change.change),
            "95 % interval": interval(c.change.low, c.change.high),
            "p (Holm)": None if math.isnan(c.adjusted) else _p(c.adjusted),
            "verdict": c.verdict,
        }
        for c in sorted(compared, key=lambda c: (c.target, c.labels))
    ]
    return format_table(_without_blank(table)) if table else ""


def aims(rows: Sequence[Row], marks: Marks) -> str:
    """Returns the table of aims, with every method that answers to one."""
    table: Table = []
    for aim in AIMS:
        answers: dict[str, list[Row]] = {}
        for row in rows:
            if _answers(row, aim):
                answers.setdefault(row.method, []).append(row)
        published = _best_published(aim.target, aim.labels, marks)
        start: dict[str, Cell] = {"target": aim.target, "labels": aim.labels}
        known: dict[str, Cell] = {"aim": f"{aim.error:g}", "published": f"{published:.4g}"}
        for method, own in answers.items():
            draws = by_draw(own)
            found = _scaled(draws) or [float(np.mean([r.mae for r in d])) for d in draws.values()]
            met = "yes" if np.mean(found) <= aim.error else "no"
            if len(draws) < aim.trials:
                met = f"open: {len(draws)} of {aim.trials} trials"
            table.append({**start, "method": method, "error": found, **known, "met": met})
        if not answers:
            table.append({**start, "method": aim.method or "any", **known, "met": "not run"})
    return format_table(table)


def saved(found: Sequence[Saved]) -> str:
    """Returns the table of labels saved."""
    table: Table = [
        {
            "target": s.target,
            "labels": s.labels,
            "method": s.comparison.method,
            "against": s.comparison.baseline,
            "trials": s.trials,
            "labels it would need, times": _bounded(s.ratio, s),
            "95 % interval": "–"
            if math.isnan(s.low)
            else f"{_bounded(s.low, s)} … {_bounded(s.high, s)}",
            "verdict with as many labels": s.verdict or "–",
        }
        for s in sorted(found, key=lambda s: (s.target, s.labels))
    ]
    done = {s.comparison for s in found}
    lacking = [f"- {c.method} against {c.baseline}" for c in SAVINGS if c not in done]
    told = ["", "Rows are lacking for:", "", *lacking] if lacking else []
    return "\n".join([format_table(table), *told] if table else [_NOTHING, *told])


def worse(compared: Sequence[Compared]) -> str:
    """Returns the comparisons that went against the method, held together with others or not."""
    lines = [
        f"- {_in_words(c)}"
        for c in compared
        if c.change.low > 0 and c.trials >= c.comparison.trials and c.target not in NO_CLAIM
    ]
    return "\n".join(lines) or "None so far."


def missing(rows: Sequence[Row]) -> str:
    """Returns the table of cells that were not run, with what they cost."""
    table: Table = []
    for wanted in WANTED:
        cells = wanted.missing(rows)
        if not cells:
            continue
        table.append(
            {
                "item": wanted.item,
                "method": wanted.method,
                "cells": f"{len(cells)} of {wanted.number}",
                "which": _which(wanted, cells),
                "minutes each": f"{wanted.minutes:g}",
                "hours": f"{len(cells) * wanted.minutes / 60:.1f}",
            }
        )
    return format_table(table) if table else "All have been run."


def sources(rows: Sequence[Row]) -> str:
    """Returns the table of the commands and commits of all rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.item, row.command, row.commit), []).append(row)
    table: Table = [
        {"item": item, "rows": len(own), "command": f"`{command}`", "commit": commit}
        for (item, command, commit), own in groups.items()
    ]
    return format_table(table) if table else _NOTHING


def by_draw(rows: Sequence[Row]) -> dict[Draw, list[Row]]:
    """Returns rows of a method by trial, or by seed where there is no trial."""
    draws: dict[Draw, list[Row]] = {}
    for row in rows:
        draws.setdefault(row.draw, []).append(row)
    return draws


def _scaled(draws: Mapping[Draw, Sequence[Row]]) -> list[float] | None:
    means = [float(np.mean([row.scaled_mae for row in rows])) for rows in draws.values()]
    return None if any(map(math.isnan, means)) else means


def _mean_time(rows: Sequence[Row]) -> str | None:
    times = [row.seconds for row in rows if not math.isnan(row.seconds)]
    return format_number(float(np.mean(times)), digits=2) if times else None


def _without_blank(table: Table) -> Table:
    """Returns a table without the columns that are blank in all lines."""
    filled = {name for line in table for name, cell in line.items() if cell is not None}
    return [{name: cell for name, cell in line.items() if name in filled} for line in table]


def _answers(row: Row, aim: Aim) -> bool:
    fits = row.item in aim.items and (row.target, row.labels) == (aim.target, aim.labels)
    return fits and row.method != CONSTANT and aim.method in ("", row.method)


def _best_published(target: str, labels: int, marks: Marks) -> float:
    mark = marks.get((target, labels, OF_ANY))
    return mark.mean if mark else next(iter(ELSEWHERE[target, labels].values()))


def _published(mark: Mark, trials: int) -> float | str:
    """Returns a published mean, with its number of trials where the row has another."""
    if len(mark.by_trial) == trials:
        return mark.mean
    return f"{format_number(mark.mean)} ({len(mark.by_trial)})"


def _in_words(c: Compared) -> str:
    return (
        f"{c.target}, {c.labels} labels: {c.comparison.method} against {c.comparison.baseline}: "
        f"{percent(c.change.change)} ({interval(c.change.low, c.change.high)}, {c.trials} trials)"
    )


def _named(baseline: str, target: str, labels: int, marks: Marks) -> str:
    mark = marks.get((target, labels, baseline))
    return f"{baseline} ({mark.source})" if mark and mark.source else baseline


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bounded(ratio: float, about: Saved) -> str:
    if ratio == 0:
        return f"< {format_number(about.least, digits=2)}"
    if math.isinf(ratio):
        return f"> {format_number(about.most, digits=2)}"
    return format_number(ratio, digits=2)


def _which(wanted: Wanted, cells: Sequence[tuple[str, int, int]]) -> str:
    """Returns missing cells in few words."""
    if len(cells) == wanted.number:
        return f"{', '.join(wanted.targets)}: {', '.join(map(str, wanted.labels))}"
    groups: dict[tuple[str, int], list[str]] = {}
    for target, labels, draw in cells:
        groups.setdefault((target, labels), []).append(str(draw))

    def of(draws: Sequence[str]) -> str:
        return wanted.of + "s" * (len(draws) > 1)

    return ", ".join(
        f"{target} {labels}"
        + (f" ({of(draws)} {', '.join(draws)})" if len(draws) < len(wanted.draws) else "")
        for (target, labels), draws in groups.items()
    )
