"""Tables of structures and labels: Matbench JSON, CSV with structure files, bundled tables."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Structure

from jaxmat.data.matbench import read_split_layout
from jaxmat.data.structures import find_structure_file, read_structure, structure_from_dict
from jaxmat.errors import UserError, listed
from jaxmat.values import written_number

BUNDLED = "bundled:"
MISSING = ("", "na", "nan", "none", "null")
# Of numbers: beyond it, single precision ends.
LARGEST = 1e30


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
    structures: tuple[Structure, ...]
    columns: dict[str, np.ndarray]

    def column(self, name: str) -> np.ndarray:
        """Returns the values of a numeric column, see `numeric_column`."""
        return numeric_column(self, name)

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        """Returns the table of the rows `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Table(
            name=self.name,
            ids=tuple(self.ids[row] for row in rows),
            structures=tuple(self.structures[row] for row in rows),
            columns={name: values[rows] for name, values in self.columns.items()},
        )


class TableRows(NamedTuple):
    """A table whose structures have not been read yet.

    Attributes:
        file: the table.
        ids: of the rows.
        places: where each row stands, such as "line 3".
        readers: of each row's structure; one raises UserError where the row cannot be used.
        columns: as in a `Table`.
    """

    file: Traversable
    ids: tuple[str, ...]
    places: Sequence[str]
    readers: Sequence[Callable[[], Structure]]
    columns: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.file.name.removesuffix(".gz").removesuffix(".json").removesuffix(".csv")

    def repeated_ids(self) -> list[str]:
        """Returns the ids of more than one row."""
        return _repeated(self.ids)

    def with_structures(self, structures: Sequence[Structure], indices: Sequence[int]) -> Table:
        """Returns the table of the rows `indices`, of which these are the structures."""
        columns = {name: values[list(indices)] for name, values in self.columns.items()}
        ids = tuple(self.ids[row] for row in indices)
        return Table(self.name, ids, tuple(structures), columns)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table of structures and labels.

    Args:
        path: see `open_table`.

    Raises:
        UserError: the file or some of its rows cannot be used; all bad rows are reported together.
    """
    rows = open_table(path)
    structures, problems = [], []
    for place, read in zip(rows.places, rows.readers, strict=True):
        try:
            structures.append(read())
        except UserError as problem:
            problems.append(f"{place}: {problem}")
    _raise_if(problems, f"{rows.file}: rows that cannot be read; mend or remove them")
    repeated = rows.repeated_ids()
    _raise_if(repeated, f"{rows.file}: ids that appear more than once; make them unique")
    return rows.with_structures(structures, range(len(structures)))


def numeric_column(table: Table | TableRows, name: str) -> np.ndarray:
    """Returns the values of a numeric column, float64 [n_row], NaN where missing.

    Raises:
        UserError: there is no such column, or it holds text or infinite values.
    """
    values = table.columns.get(name)
    if values is None:
        problem = "does not exist. "
    elif values.dtype != np.float64:
        wrong = [row for row, value in enumerate(values) if _number(value) is None]
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
    raise UserError(
        f"table {table.name}: column {name!r} {problem}"
        f"Numeric columns: {', '.join(numeric) or 'none'}. "
        "Where a value is missing, leave it blank or write null, none, na or nan."
    )


def open_table(path: str | os.PathLike[str], id_column: str = "material_id") -> TableRows:
    """Opens a table; a row that cannot be used says so when its structure is read.

    The ids are the column `id_column` where there is one, complete and unique; else the index of
    the JSON table or the first column of the CSV.

    Args:
        path: one of
            *.json.gz, *.json: the layout of Matbench, {"index", "columns", "data"}, with pymatgen
                dicts in the column "structure";
            *.csv: a header line, the first column names a file with one structure relative to the
                CSV (its suffix may be left out), the others are labels;
            "bundled:NAME": a table that comes with jaxmat.
        id_column: column of the ids; "" for none.

    Raises:
        UserError: the file is no such table.
    """
    if str(path).startswith(BUNDLED):
        return _open_json(_bundled_file(str(path).removeprefix(BUNDLED)), id_column)
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}; a table that comes with jaxmat is {BUNDLED}NAME")
    if file.name.endswith(".csv"):
        return _open_csv(file, id_column)
    if file.name.endswith((".json", ".json.gz")):
        return _open_json(file, id_column)
    raise UserError(f"{file}: unknown suffix; a table is *.json.gz, *.json or *.csv")


def _bundled_file(name: str) -> Traversable:
    folder = resources.files("jaxmat.data") / "bundled"
    files = {
        file.name.removesuffix(".json.gz"): file
        for file in folder.iterdir()
        if file.name.endswith(".json.gz")
    }
    if name not in files:
        raise UserError(f"no bundled table {name!r}; there are: {', '.join(sorted(files))}")
    return files[name]


def _open_json(file: Traversable, id_column: str) -> TableRows:
    index, names, rows = read_split_layout(file)
    _check_names(names, str(file))
    if "structure" not in names:
        raise UserError(f"{file}: no column 'structure' among {', '.join(names)}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    readers = [partial(structure_from_dict, data) for data in columns.pop("structure")]
    places = [f"row {key}" for key in index]
    ids = _choose_ids(columns.get(id_column), index)
    return TableRows(file, ids, places, readers, _as_arrays(columns))


def _open_csv(file: Path, id_column: str) -> TableRows:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, ValueError, csv.Error) as reason:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({reason})") from reason
    if len(lines) < 2:
        raise UserError(f"{file}: expected a header line and at least one row")
    (_, names), *rows = lines
    _check_names(names, str(file))

    width = len(names)
    files, *values = zip(*((cells + [""] * width)[:width] for _, cells in rows), strict=True)
    columns = dict(zip(names[1:], values, strict=True))
    readers = [partial(_read_line, file.parent, cells, width) for _, cells in rows]
    places = [f"line {number}" for number, _ in rows]
    ids = _choose_ids(columns.get(id_column), files)
    return TableRows(file, ids, places, readers, _as_arrays(columns))


def _read_line(folder: Path, cells: Sequence[str], width: int) -> Structure:
    if len(cells) != width:
        raise UserError(f"{len(cells)} cells, the header has {width}")
    return read_structure(find_structure_file(folder, cells[0].strip()))


def _choose_ids(chosen: Sequence[Any] | None, index: Sequence[Any]) -> tuple[str, ...]:
    if chosen is None or any(key in (None, "") for key in chosen) or _repeated(chosen):
        chosen = index
    return tuple(str(key) for key in chosen)


def _check_names(names: Sequence[Any], source: str) -> None:
    """Refuses column names that are no names: the first line of a CSV without a header."""
    wrong = [repr(name) for name in names if not isinstance(name, str) or _number(name) is not None]
    _raise_if(wrong, f"{source}: column names must be words (a CSV starts with a header line)")
    _raise_if(_repeated(names), f"{source}: columns that appear more than once")


def _as_arrays(columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    return {name: _as_array(values) for name, values in columns.items()}


def _as_array(values: Sequence[Any]) -> np.ndarray:
    numbers = [_number(value) for value in values]
    if None in numbers:
        return np.array([_text(value) for value in values], dtype=object)
    return np.array(numbers, dtype=np.float64)


def _text(value: Any) -> str:
    """Returns a cell's text, "" if it is missing."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    """Returns a cell's number, NaN if it is missing, None if it is something else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return float("nan")
    if isinstance(value, str):
        return written_number(value)
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")
    except (TypeError, ValueError):
        return None


def _repeated(keys: Iterable[Any]) -> list[str]:
    return [key for key, count in Counter(map(str, keys)).items() if count > 1]


def _raise_if(problems: Sequence[str], heading: str) -> None:
    if problems:
        raise UserError(f"{heading}:\n{listed(problems)}")
