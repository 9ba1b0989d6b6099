"""The file of predictions that a run leaves: one row a crystal."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmat.errors import UserError, listed


class Prediction(NamedTuple):
    """What a network says about one crystal, beside what is known.

    Attributes:
        id: of the crystal.
        split: part of the data that it belongs to, such as "test".
        target: label in `unit`, NaN where missing.
        prediction: in `unit`, NaN where there is none.
        unit: of the property, "1" if it has none.
    """

    id: str
    split: str
    target: float
    prediction: float
    unit: str


def prediction_rows(
    ids: Iterable[str], split: str, target: np.ndarray, prediction: np.ndarray, unit: str
) -> Iterator[Prediction]:
    """Yields the rows of one part of the data.

    Args:
        ids: of the crystals.
        split: name of the part.
        target: labels in `unit`, [crystals].
        prediction: in `unit`, [crystals].
        unit: of the property, "1" if it has none.
    """
    for id, label, predicted in zip(ids, target, prediction, strict=True):
        yield Prediction(id, split, float(label), float(predicted), unit)


def write_predictions(path: str | os.PathLike[str], rows: Iterable[Prediction]) -> None:
    """Writes predictions as CSV with a header line."""
    write_rows(path, Prediction._fields, rows)


def write_rows(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[tuple[str | float, ...]]
) -> None:
    """Writes rows as CSV as they come; NaN is left blank, other numbers are exact."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Reads what `write_predictions` wrote.

    Raises:
        UserError: there is no such file, or it has another header or a cell that is no number.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, None)
            lines = [(reader.line_num, cells) for cells in reader]
    except (OSError, ValueError, csv.Error) as reason:
        raise UserError(f"{path}: cannot be read as a CSV file in UTF-8 ({reason})") from reason
    if header != list(Prediction._fields):
        raise UserError(f"{path}: expected the header line {','.join(Prediction._fields)}")

    rows, problems = [], []
    for number, cells in lines:
        try:
            id, split, target, prediction, unit = cells
            rows.append(Prediction(id, split, _number(target), _number(prediction), unit))
        except ValueError as reason:
            problems.append(f"line {number}: {reason}")
    if problems:
        raise UserError(f"{path}: lines that are no predictions; mend them\n{listed(problems)}")
    return rows


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else repr(float(value))


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
