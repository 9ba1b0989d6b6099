"""Rows of a benchmark in a CSV file, to which those of each cell are added when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jaxmat.errors import UserError, listed
from jaxmat.report.rows import read_rows, write_rows

# A NamedTuple of texts, whole numbers and numbers.
Row = TypeVar("Row", bound=tuple[Any, ...])


def find_done(file: Path, kind: type[Row]) -> list[Row]:
    """Returns the rows of a file, none where there is no file.

    Args:
        file: to read.
        kind: of its rows; a blank number is NaN.

    Raises:
        UserError: see `read_typed`.
    """
    if not file.exists():
        return []
    return [kind(**values) for values in read_typed(file, get_type_hints(kind))]


def read_typed(file: Path, kinds: Mapping[str, type]) -> list[dict[str, Any]]:
    """Returns the values in some columns of a CSV file, row by row.

    Args:
        file: to read.
        kinds: of the columns: text, whole number or number, which is NaN where it is blank.

    Raises:
        UserError: it cannot be read, or a cell is no such number; all of these are told.
    """
    rows, problems = [], []
    for number, cells in read_rows(file, kinds):
        values = {}
        for name, kind in kinds.items():
            try:
                values[name] = kind(cells[name] if cells[name] or kind is not float else "nan")
            except ValueError:
                what = "whole number" if kind is int else "number"
                problems.append(f"line {number}: {name} {cells[name]!r:.60} is not a {what}")
        rows.append(values)
    if problems:
        raise UserError(f"{file}: rows that are not results\n{listed(problems)}")
    return rows


def add_done(file: Path, rows: Sequence[Row]) -> None:
    """Adds rows to a file, all at once; it is made if there is none."""
    kind = type(rows[0])
    write_rows(file, tuple(get_type_hints(kind)), [*find_done(file, kind), *rows])
