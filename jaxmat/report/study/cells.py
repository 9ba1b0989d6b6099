"""The table of results of a study: one row a cell, kept as CSV."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from jaxmat.errors import UserError, listed

KINDS = ("scratch", "finetune")
STATUSES = ("done", "failed", "missing")


class CellResult(NamedTuple):
    """What is known of one cell; numbers in the property's unit unless named scaled.

    Attributes:
        cell: id.
        kind: "scratch" or "finetune".
        source: key of the property pre-trained on, "" for scratch.
        source_size: labels pre-trained on, None for scratch.
        target: key of the property that is tested.
        target_size: labels to train and validate on.
        strategy: name of the fine-tuning strategy.
        protocol: name of the protocol.
        learning_rate: greatest learning rate, None where it is not known.
        trial: number of the sample of labels.
        status: "done", "failed" or "missing".
        property: name of the target property.
        unit: of the target property, "1" if it has none.
        n_train: labels trained on.
        n_validation: labels that choose the checkpoint.
        n_test: labels tested on.
        test_mae: NaN, as all that follow, where it is missing or the run has diverged.
        test_rmse: root mean squared error.
        test_r2: coefficient of determination.
        test_mae_scaled: in the units of the network.
        test_r2_scaled: in the units of the network.
        train_mae: of the training labels.
        train_mae_scaled: in the units of the network.
        constant_test_mae: of the median of the training labels.
        seconds: the cell took.
        directory: relative to the study's; holds predictions.csv.
        seed: of the weights and the order of the data.
        reason: of a failure.
    """

    cell: str
    kind: str
    source: str
    source_size: int | None
    target: str
    target_size: int
    strategy: str
    protocol: str
    learning_rate: float | None
    trial: int
    status: str
    property: str
    unit: str
    n_train: int | None
    n_validation: int | None
    n_test: int | None
    test_mae: float
    test_rmse: float
    test_r2: float
    test_mae_scaled: float
    test_r2_scaled: float
    train_mae: float
    train_mae_scaled: float
    constant_test_mae: float
    seconds: float
    directory: str
    seed: int = 0
    reason: str = ""


def write_table(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Writes a CSV file with a header line; None and NaN are left blank, numbers are exact."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_text(value) for value in row] for row in rows)


def write_results(path: str | os.PathLike[str], rows: Iterable[CellResult]) -> None:
    """Writes the results of a study as CSV."""
    write_table(path, CellResult._fields, rows)


def read_results(path: str | os.PathLike[str]) -> list[CellResult]:
    """Reads what `write_results` wrote; the columns `seed` and `reason` may be left out.

    Raises:
        UserError: there is no such file, columns are missing or unknown, a value does not fit
            its column, or two rows have the same id.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, ValueError, csv.Error) as reason:
        raise UserError(f"{path}: cannot be read as a CSV file in UTF-8 ({reason})") from reason
    required = set(CellResult._fields) - set(CellResult._field_defaults)
    if wrong := sorted((required - set(columns)) | (set(columns) - set(CellResult._fields))):
        raise UserError(f"{path}: columns missing or unknown: {', '.join(wrong)}")

    rows, problems = [], []
    for number, line in lines:
        try:
            rows.append(_parse(line))
        except ValueError as reason:
            problems.append(f"line {number}: {reason}")
    count = Counter(row.cell for row in rows)
    problems += [f"{n} rows for the cell {cell}" for cell, n in count.items() if n > 1]
    if problems:
        raise UserError(f"{path}: rows that are no results of cells\n{listed(problems)}")
    return rows


_TYPES = get_type_hints(CellResult)
_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: lambda text: float(text) if text else math.nan,
    int | None: lambda text: int(text) if text else None,
    float | None: lambda text: float(text) if text else None,
}


def _parse(line: dict[str, str]) -> CellResult:
    values = {}
    for name, text in line.items():
        if name is None or text is None:
            raise ValueError("not as many values as there are columns")
        try:
            values[name] = _PARSERS[_TYPES[name]](text)
        except ValueError as reason:
            raise ValueError(f"{name}: {reason}") from reason
    for name, known in (("kind", KINDS), ("status", STATUSES)):
        if values[name] not in known:
            raise ValueError(f"{name} is {values[name]!r}, not one of {', '.join(known)}")
    return CellResult(**values)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
