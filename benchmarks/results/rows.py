"""The table of results: one row for each model that was tested."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmat.errors import UserError, listed
from jaxmat.report.rows import formatted, numbers_in, read_rows, write_rows
from jaxmat.report.study.published import HALF_RANGES

_TEXTS = ("item", "target", "method", "unit", "command", "commit")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
# Errors of some benchmarks are kept with five digits.
_TOLERANCE = 1e-3
# What the rows of different methods have in common: the trial, else the seed.
Draw = tuple[int | None, int | None]


class Row(NamedTuple):
    """One model and its test error.

    Attributes:
        item: the question that it belongs to.
        target: property, or the task of a benchmark.
        labels: of the training and the validation part.
        method: how it was made; the same words for all targets, labels and trials.
        trial: number of the list of labels, or of the fold; None where there is none.
        seed: of the weights and the order; None where nothing is drawn.
        mae: mean absolute error on the test part, in the unit.
        unit: of the error.
        scaled_mae: the same in half ranges of all labels, as published; NaN for other targets.
        command: that made it.
        commit: it ran on.
        seconds: that it took, on whatever machine; NaN where it is not known.
    """

    item: str
    target: str
    labels: int
    method: str
    trial: int | None
    seed: int | None
    mae: float
    unit: str
    scaled_mae: float
    command: str
    commit: str
    seconds: float

    @property
    def cell(self) -> tuple[str, str, int, str, int | None, int | None]:
        """What no other row has."""
        return self[:6]

    @property
    def draw(self) -> Draw:
        """What this row has in common with those of other methods."""
        return (self.trial, None) if self.trial is not None else (None, self.seed)


def scaled(target: str, mae: float) -> float:
    """Returns an error in half ranges of all labels; NaN where that range was not published."""
    return mae / HALF_RANGES[target][0] if target in HALF_RANGES else math.nan


def read_results(file: Path) -> list[Row]:
    """Returns the rows of a table.

    Raises:
        UserError: it cannot be read, or rows are not what `Row` says, all of them told.
    """
    rows, problems = [], []
    for number, line in read_rows(file, Row._fields):
        row, wrong = _row(line)
        problems += [f"line {number}: {text}" for text in wrong]
        rows += [row] if row else []
    problems += _twice(rows)
    if problems:
        raise UserError(f"{file}: rows that are not results\n{listed(problems)}")
    return rows


def write_results(file: Path, rows: Iterable[Row]) -> None:
    """Writes a table of rows."""
    write_rows(file, Row._fields, rows)


def add_rows(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """Returns rows with more of them behind; those that are there with the same error stay.

    Errors are the same to four digits: processors round differently.

    Raises:
        UserError: one is there with another error, or is not what `Row` says.
    """
    there = {row.cell: row.mae for row in rows}
    new = [r for r in more if not math.isclose(there.get(r.cell, math.nan), r.mae, rel_tol=1e-4)]
    lines = [dict(zip(Row._fields, formatted(row), strict=True)) for row in new]
    problems = [text for line in lines for text in _row(line)[1]]
    problems += _twice([*rows, *new])
    if problems:
        raise UserError(f"These rows cannot be added\n{listed(list(dict.fromkeys(problems)))}")
    return [*rows, *new]


def _row(line: dict[str, str]) -> tuple[Row | None, list[str]]:
    """Returns the row of a line, None with what is wrong with it."""
    texts = {name: line[name].strip() for name in _TEXTS}
    wrong = [f"{name} is blank" for name, text in texts.items() if not text]
    if texts["commit"] and not _COMMIT.fullmatch(texts["commit"]):
        wrong.append(f"commit {texts['commit']!r:.60} is none")
    wholes, bad = _wholes(line)
    numbers, not_numbers = numbers_in(line, ("mae", "scaled_mae", "seconds"))
    wrong += bad + not_numbers
    mae, target = numbers["mae"], texts["target"]
    if not not_numbers and not (math.isfinite(mae) and mae >= 0):
        wrong.append("mae is no error")
    if target in HALF_RANGES and texts["unit"] not in ("", HALF_RANGES[target][1]):
        wrong.append(f"unit of {target} is {texts['unit']!r}, not {HALF_RANGES[target][1]!r}")
    expected = scaled(target, mae)
    if not wrong and not _agree(expected, numbers["scaled_mae"]):
        wrong.append(f"scaled_mae is {numbers['scaled_mae']:.6g}, not {expected:.6g}")
    if wrong:
        return None, wrong
    values: dict[str, Any] = {**texts, **wholes, **numbers}
    return Row(**values), []


def _wholes(line: dict[str, str]) -> tuple[dict[str, int | None], list[str]]:
    """Returns labels, trial and seed, and what is wrong with them."""
    cells = {name: line[name].strip() for name in ("labels", "trial", "seed")}
    wrong = [
        f"{name} {cell!r:.60} is not a whole number"
        for name, cell in cells.items()
        if not re.fullmatch(r"\d{1,9}", cell) and (cell or name == "labels")
    ]
    if wrong:
        return {}, wrong
    return {name: int(cell) if cell else None for name, cell in cells.items()}, []


def _agree(expected: float, found: float) -> bool:
    if math.isnan(expected) or math.isnan(found):
        return math.isnan(expected) and math.isnan(found)
    return math.isclose(expected, found, rel_tol=_TOLERANCE)


def _twice(rows: Iterable[Row]) -> list[str]:
    counts = Counter(row.cell for row in rows)
    return [
        " ".join(str(part) for part in cell if part is not None) + f" stands there {n} times"
        for cell, n in counts.items()
        if n > 1
    ]
