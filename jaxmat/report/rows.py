r"""CSV files of named columns: numbers are exact, what is missing is blank.

A cell that begins with ' is text that a spreadsheet would take for a formula, or that has control
characters: they are written out as in \x1b, a backslash as two. `read_rows` gives the text itself.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from jaxmat.errors import UserError
from jaxmat.runtime.files import CONTROL, reason, shown, whole_file
from jaxmat.values import written_number

_FORMULA = ("=", "+", "-", "@", "'")
_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4})")

Value = str | float | None


def write_rows(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Value]]
) -> None:
    """Writes rows under a header line as they come; None and NaN are left blank.

    The file is there when all rows are; bytes of names that are no UTF-8 stay as they are.
    """
    with (
        whole_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(formatted(header))
        for row in rows:
            writer.writerow(formatted(row))


def formatted(row: Iterable[Value]) -> list[str]:
    """Returns the cells of a row as they are written."""
    return [_cell(value) for value in row]


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
        with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or []
            rows = [(reader.line_num, line) for line in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file ({reason(error)})") from error
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path}: its header line lacks the columns {', '.join(missing)}")
    for number, line in rows:
        if None in line or None in line.values():
            raise UserError(f"{path}: line {number} does not have one cell for each column")
    return [(number, {k: unformatted(cell) for k, cell in line.items()}) for number, line in rows]


def numbers_in(row: Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """Returns the numbers in some cells of a row, and what is wrong with those that hold none.

    Args:
        row: as from `read_rows`.
        names: of the columns; a blank cell is NaN, and so is a column that is not there.
    """
    found = {name: written_number(row.get(name, "").strip() or "nan") for name in names}
    wrong = [f"{name} {row[name]!r:.60} is not a number" for name, x in found.items() if x is None]
    return {name: math.nan if x is None else x for name, x in found.items()}, wrong


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _harmless(value)
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else repr(float(value))


def _harmless(text: str) -> str:
    formula = text.startswith(_FORMULA) and written_number(text) is None
    if not formula and CONTROL.search(text) is None:
        return text
    return "'" + shown(text.replace("\\", "\\\\"))


def unformatted(cell: str) -> str:
    """Returns the text of a cell that was written by `formatted`."""
    if not cell.startswith("'"):
        return cell
    return _ESCAPED.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else m[1], cell[1:])
