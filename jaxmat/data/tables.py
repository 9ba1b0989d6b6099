"""Tables of crystals and labels: crystals as arrays, labels as columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from jaxmat.data.contents import Contents, Crystals
from jaxmat.data.findings import some
from jaxmat.data.formats.recognise import unpacked_name
from jaxmat.data.kept import Rows, kept_rows
from jaxmat.data.layouts.cells import number
from jaxmat.data.layouts.rows import ALL, Wanted
from jaxmat.data.reading import BUNDLED, folder_table
from jaxmat.data.reading_pool import DEFAULT_LIMITS, Limits
from jaxmat.errors import UserError, counted, listed
from jaxmat.runtime.caches import cache_folder

# Of numbers: beyond it, single precision ends.
LARGEST = 1e30


@dataclass(frozen=True, eq=False)
class Table:
    """Crystals with their labels, one row a crystal.

    Attributes:
        name: the file's name without its suffix.
        ids: id of each row.
        contents: the crystals as arrays.
        columns: all other columns by name, each [n_row]: float64 with NaN where a value is
            missing, or object (str, "" where missing) if some value is not a number. A list of
            strings is its items with commas between them, such as "gv,ph".
    """

    name: str
    ids: tuple[str, ...]
    contents: Contents
    columns: dict[str, np.ndarray]

    @property
    def structures(self) -> Crystals:
        """The crystals, each made when it is asked for."""
        return Crystals(self.contents)

    def column(self, name: str) -> np.ndarray:
        """Returns the values of a numeric column, see `numeric_column`."""
        return numeric_column(self, name)

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        """Returns the table of the rows `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Table(
            name=self.name,
            ids=tuple(self.ids[row] for row in rows.tolist()),
            contents=self.contents.take(rows),
            columns={name: values[rows] for name, values in self.columns.items()},
        )


class TableRows(NamedTuple):
    """All rows of a table, those without a usable crystal among them.

    Attributes:
        path: of the table.
        ids: of the rows.
        places: where each row stands, such as "line 3".
        contents: the crystals, one without sites where there is none or the row has no label asked
            for.
        reasons: why a row has no crystal, "" otherwise.
        remarks: on each row.
        columns: as in a `Table`.
        unused_ids: why the ids that some rows have are not used, "" where they are or there are
            none.
    """

    path: str
    ids: tuple[str, ...]
    places: Sequence[str]
    contents: Contents
    reasons: Sequence[str]
    remarks: Sequence[list[str]]
    columns: dict[str, np.ndarray]
    unused_ids: str = ""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        name = unpacked_name(PurePath(self.path.removeprefix(BUNDLED)).name)
        return name.removesuffix(".json").removesuffix(".csv")

    def repeated_ids(self) -> list[str]:
        """Returns the ids of more than one row."""
        return _repeated(self.ids)

    def take(self, indices: Sequence[int]) -> Table:
        """Returns the table of the rows `indices`, all of which have a crystal."""
        columns = {name: values[list(indices)] for name, values in self.columns.items()}
        ids = tuple(self.ids[row] for row in indices)
        return Table(self.name, ids, self.contents.take(indices), columns)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table of structures and labels.

    Args:
        path: see `jaxmat.data.reading.read`.

    Raises:
        UserError: the file or some of its rows cannot be used; all bad rows are reported together.
    """
    rows = read_rows(path)
    bad = zip(rows.places, rows.reasons, strict=True)
    problems = [f"{place}: {reason}" for place, reason in bad if reason]
    _raise_if(problems, f"{path}: rows that cannot be used; mend or remove them")
    _raise_if(rows.repeated_ids(), f"{path}: ids that appear more than once; make them unique")
    return rows.take(range(len(rows.ids)))


def read_rows(
    path: str | os.PathLike[str],
    wanted: Wanted = ALL,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
    folder: Path | None = None,
) -> TableRows:
    """Reads all rows of a table; one that cannot be used has a reason.

    The ids are those of the column of ids where it is complete and they are unique; else the index
    of a JSON table, the names of files of a CSV, or the numbers of the rows.

    Args:
        path: of a file or folder, or "bundled:NAME"; see `jaxmat.data.reading.read`.
        wanted: what is asked for.
        limits: of reading one structure.
        workers: processes that read; None: one for each core.
        folder: where tables are kept that take long to read, see `jaxmat.data.kept`; None: the
            user's cache.

    Raises:
        UserError: it is not a table, or cannot be read to its end.
    """
    if wanted.labels and os.path.isdir(path) and not folder_table(Path(path)):
        there = [file.name for file in sorted(Path(path).glob("*.*sv"))]
        raise UserError(
            f"{path}: the folder has no table id_prop.csv with the labels of its structures; give "
            f"the table instead of the folder{': ' * bool(there)}{some(there)}"
        )
    rows, contents = kept_rows(str(path), wanted, limits, workers, folder or cache_folder("tables"))
    unused = _why_unused(rows)
    ids = rows.names if unused else rows.ids
    # Crystals of one file, FILE@0 or FILE#NAME, have the same ids wherever it lies.
    place = os.path.join(os.path.dirname(path), "")
    several = f"{path}@", f"{path}#"
    ids = [id.removeprefix(place) if id.startswith(several) else id for id in ids]
    return TableRows(
        path=str(path),
        ids=tuple(ids),
        places=rows.places,
        contents=contents,
        reasons=rows.reasons,
        remarks=rows.remarks,
        columns={name: _as_array(cells) for name, cells in rows.cells.items()},
        unused_ids=unused,
    )


def _why_unused(rows: Rows) -> str:
    """Returns why ids cannot tell rows apart, "" where they can or there are none."""
    named = [id != name for id, name in zip(rows.ids, rows.names, strict=True)]
    if not any(named):
        return ""
    # Of a row that cannot be used the id may not be known either.
    lacking = [
        name
        for has, name, reason in zip(named, rows.names, rows.reasons, strict=True)
        if not has and not reason
    ]
    if lacking:
        return f"none in {counted(len(lacking), 'row')} ({some(lacking)})"
    repeated = _repeated(rows.ids)
    return f"some appear more than once ({some(repeated)})" if repeated else ""


def _repeated(ids: Sequence[str]) -> list[str]:
    return [id for id, count in Counter(ids).items() if count > 1]


def numeric_column(table: Table | TableRows, name: str) -> np.ndarray:
    """Returns the values of a numeric column, float64 [n_row], NaN where missing.

    Raises:
        UserError: there is no such column, or it holds text or infinite values.
    """
    values = table.columns.get(name)
    if values is None:
        problem = "does not exist. "
    elif values.dtype != np.float64:
        wrong = [row for row, value in enumerate(values) if number(value) is None]
        cells = [f"row {table.ids[row]} has {values[row]!r:.60}" for row in wrong]
        problem = f"is not numeric:\n{listed(cells)}\n"
    elif (huge := np.flatnonzero(np.abs(values) > LARGEST)).size:
        cells = [f"row {table.ids[row]} has {values[row]:g}" for row in huge]
        raise UserError(
            f"table {table.name}: column {name!r} has values that are infinite or beyond "
            f"{LARGEST:g}; mend them or leave them blank (missing):\n{listed(cells)}"
        )
    else:
        return values
    numeric = [key for key, value in table.columns.items() if value.dtype == np.float64]
    there = ", ".join(numeric[:40]) + ", ..." * (len(numeric) > 40)
    raise UserError(
        f"table {table.name}: column {name!r} {problem}"
        f"Numeric columns: {there or 'none'}. "
        "Where a value is missing, leave it blank or write null, none, na or nan."
    )


def _as_array(values: Sequence[Any]) -> np.ndarray:
    numbers = [number(value) for value in values]
    if None in numbers:
        return np.array([_text(value) for value in values], dtype=object)
    return np.array(numbers, dtype=np.float64)


def _text(value: Any) -> str:
    """Returns a cell's text, "" if it is missing."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return "" if value is None else str(value)


def _raise_if(problems: Sequence[str], heading: str) -> None:
    if problems:
        raise UserError(f"{heading}:\n{listed(problems)}")
