"""Tables of crystals and labels, read whole: crystals as arrays, labels as columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, overload

import numpy as np
from pymatgen.core import Structure

from jaxmat.data.findings import some
from jaxmat.data.formats.recognise import unpacked_name
from jaxmat.data.layouts.cells import number
from jaxmat.data.layouts.rows import ALL, Wanted
from jaxmat.data.reading import BUNDLED, folder_table, read
from jaxmat.data.reading_pool import DEFAULT_LIMITS, Limits
from jaxmat.data.store import Content
from jaxmat.errors import UserError, listed

# Of numbers: beyond it, single precision ends.
LARGEST = 1e30


class Crystals(Sequence[Structure]):
    """Crystals kept as arrays, some hundred bytes each; a structure is made when it is asked for.

    Attributes:
        contents: of the crystals.
    """

    def __init__(self, contents: Iterable[Content]) -> None:
        """Keeps them."""
        self.contents = list(contents)

    def __len__(self) -> int:
        return len(self.contents)

    @overload
    def __getitem__(self, index: int) -> Structure: ...
    @overload
    def __getitem__(self, index: slice) -> Crystals: ...
    def __getitem__(self, index: int | slice) -> Structure | Crystals:
        """Returns a crystal, or some."""
        if isinstance(index, slice):
            return Crystals(self.contents[index])
        return self.contents[index].structure()


@dataclass(frozen=True, eq=False)
class Table:
    """Crystals with their labels, one row a crystal.

    Attributes:
        name: the file's name without its suffix.
        ids: id of each row.
        structures: the crystals.
        columns: all other columns by name, each [n_row]: float64 with NaN where a value is
            missing, or object (str, "" where missing) if some value is not a number. A list of
            strings is its items with commas between them, such as "gv,ph".
    """

    name: str
    ids: tuple[str, ...]
    structures: Sequence[Structure]
    columns: dict[str, np.ndarray]

    @property
    def contents(self) -> list[Content]:
        """The crystals as arrays."""
        if isinstance(self.structures, Crystals):
            return self.structures.contents
        return [Content.of(structure) for structure in self.structures]

    def column(self, name: str) -> np.ndarray:
        """Returns the values of a numeric column, see `numeric_column`."""
        return numeric_column(self, name)

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        """Returns the table of the rows `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        structures: Sequence[Structure]
        if isinstance(self.structures, Crystals):
            structures = Crystals(self.structures.contents[row] for row in rows)
        else:
            structures = tuple(self.structures[row] for row in rows)
        return Table(
            name=self.name,
            ids=tuple(self.ids[row] for row in rows),
            structures=structures,
            columns={name: values[rows] for name, values in self.columns.items()},
        )


class TableRows(NamedTuple):
    """All rows of a table, those without a usable crystal among them.

    Attributes:
        path: of the table.
        ids: of the rows.
        places: where each row stands, such as "line 3".
        contents: the crystals, None where there is none or the row has no label asked for.
        reasons: why a row has no crystal, "" otherwise.
        remarks: on each row.
        columns: as in a `Table`.
    """

    path: str
    ids: tuple[str, ...]
    places: Sequence[str]
    contents: Sequence[Content | None]
    reasons: Sequence[str]
    remarks: Sequence[list[str]]
    columns: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        name = unpacked_name(PurePath(self.path.removeprefix(BUNDLED)).name)
        return name.removesuffix(".json").removesuffix(".csv")

    def repeated_ids(self) -> list[str]:
        """Returns the ids of more than one row."""
        return [id for id, count in Counter(self.ids).items() if count > 1]

    def take(self, indices: Sequence[int]) -> Table:
        """Returns the table of the rows `indices`, all of which have a crystal."""
        chosen = [content for row in indices if (content := self.contents[row]) is not None]
        columns = {name: values[list(indices)] for name, values in self.columns.items()}
        return Table(self.name, tuple(self.ids[row] for row in indices), Crystals(chosen), columns)


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
) -> TableRows:
    """Reads all rows of a table; one that cannot be used has a reason.

    The ids are those of the column of ids where it is complete and they are unique; else the index
    of a JSON table, the names of files of a CSV, or the numbers of the rows.

    Args:
        path: of a file or folder, or "bundled:NAME"; see `jaxmat.data.reading.read`.
        wanted: what is asked for.
        limits: of reading one structure.
        workers: processes that read; None: one for each core.

    Raises:
        UserError: it is no table, or cannot be read to its end.
    """
    if wanted.labels and os.path.isdir(path) and not folder_table(Path(path)):
        there = [file.name for file in sorted(Path(path).glob("*.*sv"))]
        raise UserError(
            f"{path}: the folder has no table id_prop.csv with the labels of its structures; give "
            f"the table instead of the folder{': ' * bool(there)}{some(there)}"
        )
    rows, cells = [], []
    for row in read(str(path), wanted, limits, workers):
        if row.reason and not row.place:
            raise UserError(f"{path}: {row.reason.removeprefix('unreadable: ')}")
        cells.append(row.labels)
        rows.append(row._replace(labels={}))
    named = {row.id != row.name for row in rows}
    ids = [row.id for row in rows]
    if len(named) > 1 or len(set(ids)) < len(ids):
        ids = [row.name for row in rows]
    # Crystals of one file, FILE@0 or FILE#NAME, have the same ids wherever it lies.
    folder = os.path.join(os.path.dirname(path), "")
    several = f"{path}@", f"{path}#"
    ids = [id.removeprefix(folder) if id.startswith(several) else id for id in ids]
    return TableRows(
        path=str(path),
        ids=tuple(ids),
        places=[row.place for row in rows],
        contents=[row.content for row in rows],
        reasons=[row.reason for row in rows],
        remarks=[row.remarks for row in rows],
        columns=_as_columns(cells),
    )


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


def _as_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _as_array([row.get(name) for row in rows]) for name in names}


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
