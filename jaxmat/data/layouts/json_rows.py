"""Rows of JSON tables: records, lists of cells, structures; what holds them is told elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from jaxmat.data.formats.dicts import is_structure
from jaxmat.data.formats.sites import shortened
from jaxmat.data.layouts.cells import (
    choose_id,
    choose_structure,
    holds_structure,
    labels_of,
    name_columns,
    tell_apart,
)
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError, listed

_LOOKED_AT = 1000  # rows among which one with a structure has to be
LAYOUTS = (
    'a table is {"index": [...], "columns": [...], "data": [[...], ...]} (pandas, '
    'orient="split"), a list of records [{"structure": {...}, "LABEL": ...}, ...], or one record a '
    "line"
)


class Item(NamedTuple):
    """A row of a table.

    Attributes:
        name: of the row.
        value: its record, its list of cells, or its structure.
        text: of the value.
    """

    name: str
    value: Any
    text: str


def read_items(items: Iterator[Item], names: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    """Yields rows; of their cells the first that holds a structure is the column of all.

    Args:
        items: the rows.
        names: of the columns, where rows are lists of cells; None: records tell them.
        wanted: what is asked for.

    Raises:
        UserError: there are no rows, or no structures in the first of them.
    """
    if names is not None:
        names = _checked(names)
    first: list[Item] = []
    found: list[str] = []
    for item in items:
        first.append(item)
        if names is None and isinstance(item.value, list):
            names = _unnamed(item.value, wanted)
        found = [name for name, value in _cells(item.value, names) if holds_structure(value)]
        if found or holds_structure(item.value) or len(first) >= _LOOKED_AT:
            break
    if not first:
        raise UserError("it has 0 rows")
    itself = holds_structure(first[-1].value) and (is_structure(first[-1].value) or not found)
    column = choose_structure(found) if found and not itself else ""
    if not column and not itself:
        raise UserError(_no_structure(first[0].value, names, len(first)))
    for item in chain(first, items):
        yield _make_row(item, names, column, wanted)


def _unnamed(cells: list[Any], wanted: Wanted) -> list[str] | None:
    """Returns names for the cells of a row (pandas, orient="values"), None without structures."""
    places = [i for i, cell in enumerate(cells) if holds_structure(cell)]
    return name_columns(len(cells), places[0], wanted.labels) if places else None


def _cells(value: object, names: list[str] | None) -> list[tuple[str, Any]]:
    if names is not None:
        if not isinstance(value, list) or len(value) != len(names):
            return []
        return list(zip(names, value, strict=True))
    return list(value.items()) if isinstance(value, dict) else []


def _make_row(item: Item, names: list[str] | None, column: str, wanted: Wanted) -> Row:
    cells = _cells(item.value, names)
    if names is not None and not cells:
        problem = f"expected a list of {len(names)} values"
        return Row("", item.name, f"row {item.name}", "malformed", problem, [], {})
    if column and not isinstance(item.value, (dict, list)):
        problem = f"expected a record, found {shortened(item.value)}"
        return Row("", item.name, f"row {item.name}", "malformed", problem, [], {})
    if not column or is_structure(item.value):
        return row_of(item, item.value, [], cells, wanted)
    key = [column if names is None else names.index(column)]
    structure = dict(cells).get(column)
    labels = [(name, value) for name, value in cells if name != column]
    return row_of(item, structure, key, labels, wanted, f"column {column!r} has ")


def row_of(
    item: Item,
    structure: object,
    key: list[str | int],
    cells: list[tuple[str, Any]],
    wanted: Wanted,
    where: str = "",
) -> Row:
    """Returns the row of a structure.

    Args:
        item: where it was found.
        structure: a dict of a structure, or of an entry that has one; or the text of a file.
        key: where in the text of the item the structure is.
        cells: what may be labels, by column.
        wanted: what is asked for.
        where: for a message, what stands before a value that is not a structure.
    """
    name, place = item.name, f"row {item.name}"
    if isinstance(structure, dict) and not is_structure(structure) and "structure" in structure:
        key = [*key, "structure"]
        cells = [*cells, *((n, v) for n, v in structure.items() if n != "structure")]
    labels = labels_of(cells)
    id = choose_id(labels, wanted.id_column)
    if isinstance(structure, str):
        return Row(id, name, place, "text", structure, [], labels)
    if not isinstance(structure, dict):
        found = "null" if structure is None else shortened(structure)
        return Row(id, name, place, "problem", f"not a structure: {where}{found}", [], labels)
    return Row(id, name, place, "json", item.text, key, labels)


def _checked(names: list[Any]) -> list[str]:
    """Returns names of columns, all different.

    Raises:
        UserError: some are not words.
    """
    if wrong := [shortened(name) for name in names if not isinstance(name, str)]:
        raise UserError(f"column names must be words:\n{listed(wrong)}")
    return tell_apart(names)


def _no_structure(value: object, names: list[str] | None, rows: int) -> str:
    if names is not None:
        there = ", ".join(names[:20]) or "none"
        return f"no column holds structures, as far as its first {rows} rows tell; columns: {there}"
    if isinstance(value, dict):
        there = ", ".join(map(repr, list(value)[:10])) or "none"
        return f"no structure in its first {rows} records; keys of the first: {there}. {LAYOUTS}"
    return f"recognised: a list whose first item is {shortened(value)}. {LAYOUTS}"
