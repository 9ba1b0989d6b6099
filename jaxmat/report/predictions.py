"""The file of predictions that a run leaves: one row a crystal."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxmat.errors import UserError, listed
from jaxmat.report.rows import numbers_in, read_rows, write_rows


class Prediction(NamedTuple):
    """What a network says about one crystal, beside what is known.

    Attributes:
        id: of the crystal.
        split: part of the data that it belongs to, such as "test".
        target: label in `unit`, NaN where missing.
        prediction: in `unit`, NaN where there is none.
        unit: of the property, "1" if it has none.
        low: lower end of the interval about the prediction, in `unit`, NaN where there is none.
        high: its upper end.
    """

    id: str
    split: str
    target: float
    prediction: float
    unit: str
    low: float = math.nan
    high: float = math.nan


_NUMBERS = ("target", "prediction", "low", "high")


def prediction_rows(
    ids: Iterable[str],
    split: str,
    target: np.ndarray,
    prediction: np.ndarray,
    unit: str,
    interval: tuple[np.ndarray, np.ndarray],
) -> Iterator[Prediction]:
    """Yields the rows of one part of the data.

    Args:
        ids: of the crystals.
        split: name of the part.
        target: labels in `unit`, [crystals].
        prediction: in `unit`, [crystals].
        unit: of the property, "1" if it has none.
        interval: lower and upper ends in `unit`, [crystals] each; NaN where there are none.
    """
    for id, *numbers in zip(ids, target, prediction, *interval, strict=True):
        label, predicted, low, high = map(float, numbers)
        yield Prediction(id, split, label, predicted, unit, low, high)


def write_predictions(path: str | os.PathLike[str], rows: Iterable[Prediction]) -> None:
    """Writes predictions as CSV with a header line."""
    write_rows(path, Prediction._fields, rows)


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Reads what `write_predictions` wrote; the columns of the interval may be left out.

    Raises:
        UserError: there is no such file, columns are missing, or a cell is not a number.
    """
    rows, problems = [], []
    for number, line in read_rows(path, Prediction._fields[:5]):
        numbers, wrong = numbers_in(line, _NUMBERS)
        problems += [f"line {number}: {cell}" for cell in wrong]
        target, prediction, low, high = (numbers[name] for name in _NUMBERS)
        about = (line["id"], line["split"], target, prediction, line["unit"])
        rows.append(Prediction(*about, low, high))
    if problems:
        raise UserError(f"{path}: lines that are not predictions; mend them\n{listed(problems)}")
    return rows
