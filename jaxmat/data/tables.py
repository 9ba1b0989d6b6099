"""Tables of structures and labels: Matbench JSON, CSV with structure files, bundled tables."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from jaxmat.data.matbench import read_split_layout
from jaxmat.data.structures import find_structure_file, read_structure, structure_from_dict
from jaxmat.errors import UserError, listed

BUNDLED = "bundled:"
MISSING = ("", "na", "nan", "null")


@dataclass(frozen=True, eq=False)
class Table:
    """Crystals with their labels, one row a crystal.

    Attributes:
        name: the file's name without its suffix.
        ids: unique id of each row.
        structures: the crystals.
        columns: all other columns by name, each [n_row]: float64 with NaN where a value is
            missing, or object (str, "" where missing) if some value is not a number.
    """

    name: str
    ids: tuple[str, ...]
    structures: tuple[Structure, ...]
    columns: dict[str, np.ndarray]

    def column(self, name: str) -> np.ndarray:
        """Returns the values of a numeric column, float64 [n_row], NaN where missing.

        Raises:
            UserError: there is no such column, or it holds text.
        """
        values = self.columns.get(name)
        if values is not None and values.dtype == np.float64:
            return values
        wrong = "does not exist"
        if values is not None:
            row = next(row for row, value in enumerate(values) if _number(value) is None)
            wrong = f"is not numeric: row {self.ids[row]} has {values[row]!r}"
        numeric = [key for key, value in self.columns.items() if value.dtype == np.float64]
        raise UserError(
            f"table {self.name}: column {name!r} {wrong}. "
            f"Numeric columns: {', '.join(numeric) or 'none'}. "
            "Where a value is missing, leave it blank or write null, na or nan."
        )

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        """Returns the table of the rows `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Table(
            name=self.name,
            ids=tuple(self.ids[row] for row in rows),
            structures=tuple(self.structures[row] for row in rows),
            columns={name: values[rows] for name, values in self.columns.items()},
        )


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table of structures and labels.

    The ids are the column "material_id" where it is complete and unique, else the index of the
    JSON table or the first column of the CSV.

    Args:
        path: one of
            *.json.gz, *.json: the layout of Matbench, {"index", "columns", "data"}, with pymatgen
                dicts in the column "structure";
            *.csv: a header line, the first column names a CIF, POSCAR or pymatgen JSON file
                relative to the CSV (its suffix may be left out), the others are labels;
            "bundled:NAME": a table that comes with jaxmat.

    Raises:
        UserError: the file or some of its rows cannot be used; all bad rows are reported together.
    """
    if str(path).startswith(BUNDLED):
        return _read_json(_bundled_file(str(path).removeprefix(BUNDLED)))
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}; a table that comes with jaxmat is {BUNDLED}NAME")
    if file.name.endswith(".csv"):
        return _read_csv(file)
    if file.name.endswith((".json", ".json.gz")):
        return _read_json(file)
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


def _read_json(file: Traversable) -> Table:
    index, names, rows = read_split_layout(file)
    _check_names(names, str(file))
    if "structure" not in names:
        raise UserError(f"{file}: no column 'structure' among {', '.join(names)}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))

    structures, problems = [], []
    for key, data in zip(index, columns.pop("structure"), strict=True):
        try:
            structures.append(structure_from_dict(data))
        except UserError as problem:
            problems.append(f"row {key}: {problem}")
    _raise_if(problems, f"{file}: structures that cannot be read; mend or remove these rows")
    return _make_table(file, index, structures, columns)


def _read_csv(file: Path) -> Table:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (ValueError, csv.Error) as reason:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({reason})") from reason
    if len(lines) < 2:
        raise UserError(f"{file}: expected a header line and at least one row")
    (_, names), *rows = lines
    _check_names(names, str(file))

    problems = [
        f"line {number}: {len(cells)} cells, the header has {len(names)}"
        for number, cells in rows
        if len(cells) != len(names)
    ]
    _raise_if(problems, f"{file}: rows that do not match the header")
    files, *values = zip(*(cells for _, cells in rows), strict=True)

    structures = []
    for (number, _), name in zip(rows, files, strict=True):
        try:
            structures.append(read_structure(find_structure_file(file.parent, name.strip())))
        except UserError as problem:
            problems.append(f"line {number}: {problem}")
    _raise_if(problems, f"{file}: structures that cannot be read; mend or remove these rows")
    return _make_table(file, files, structures, dict(zip(names[1:], values, strict=True)))


def _check_names(names: Sequence[Any], source: str) -> None:
    """Refuses column names that are no names: the first line of a CSV without a header."""
    wrong = [repr(name) for name in names if not isinstance(name, str) or _number(name) is not None]
    _raise_if(wrong, f"{source}: column names must be words (a CSV starts with a header line)")
    _raise_if(_repeated(names), f"{source}: columns that appear more than once")


def _make_table(
    file: Traversable,
    index: Sequence[Any],
    structures: Sequence[Structure],
    columns: dict[str, Sequence[Any]],
) -> Table:
    ids = columns.get("material_id", index)
    if any(key in (None, "") for key in ids) or _repeated(ids):
        ids = index
    _raise_if(_repeated(ids), f"{file}: ids that appear more than once; make them unique")

    arrays = {name: _as_array(values) for name, values in columns.items()}
    infinite = [
        f"{name} of row {ids[row]}"
        for name, values in arrays.items()
        if values.dtype == np.float64
        for row in np.flatnonzero(np.isinf(values)).tolist()
    ]
    _raise_if(infinite, f"{file}: infinite values; mend them or leave them blank (missing)")
    return Table(
        name=file.name.removesuffix(".gz").removesuffix(".json").removesuffix(".csv"),
        ids=tuple(str(key) for key in ids),
        structures=tuple(structures),
        columns=arrays,
    )


def _as_array(values: Sequence[Any]) -> np.ndarray:
    numbers = [_number(value) for value in values]
    if None in numbers:
        return np.array(["" if value is None else str(value) for value in values], dtype=object)
    return np.array(numbers, dtype=np.float64)


def _number(value: Any) -> float | None:
    """Returns a cell's number, NaN if it is missing, None if it is something else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return float("nan")
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
