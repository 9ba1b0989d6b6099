"""CSV files of named columns: numbers are exact, what is missing is blank."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jaxmat.errors import UserError

Value = str | float | None


def write_rows(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Value]]
) -> None:
    """Writes rows under a header line as they come; None and NaN are left blank."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def read_rows(
    path: str | os.PathLike[str], columns: Collection[str]
) -> list[tuple[int, dict[str, str]]]:
    """Reads the rows of a CSV file in UTF-8, each with the number of its line.

    Args:
        path: of the file.
        columns: that it must have; others may be there, too.

    Raises:
        UserError: there is no such file, columns are missing, or a row has not one cell for each
            column.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or []
            rows = [(reader.line_num, line) for line in reader]
    except (OSError, ValueError, csv.Error) as reason:
        raise UserError(f"{path}: cannot be read as a CSV file in UTF-8 ({reason})") from reason
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path}: its header line lacks the columns {', '.join(missing)}")
    for number, line in rows:
        if None in line or None in line.values():
            raise UserError(f"{path}: line {number} does not have one cell for each column")
    return rows


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, (str, int)):
        return str(value)
    return "" if math.isnan(value) else repr(float(value))
