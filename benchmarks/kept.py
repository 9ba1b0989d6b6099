"""Rows of a benchmark in a CSV file, to which those of each cell are added when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jaxmat.report.rows import read_rows, write_rows

# A NamedTuple of texts, whole numbers and numbers.
Row = TypeVar("Row", bound=tuple[Any, ...])


def find_done(file: Path, kind: type[Row]) -> list[Row]:
    """Returns the rows of a file, none where there is no file.

    Args:
        file: to read.
        kind: of its rows; a blank number is NaN.
    """
    if not file.exists():
        return []
    kinds = get_type_hints(kind)
    return [
        kind(**{name: kinds[name](_filled(cell, kinds[name])) for name, cell in row.items()})
        for _, row in read_rows(file, kinds)
    ]


def add_done(file: Path, rows: Sequence[Row]) -> None:
    """Adds rows to a file, all at once; it is made if there is none."""
    kind = type(rows[0])
    write_rows(file, tuple(get_type_hints(kind)), [*find_done(file, kind), *rows])


def _filled(cell: str, kind: type) -> str:
    return cell if cell or kind is not float else "nan"
