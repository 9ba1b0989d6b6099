"""Tables in JSON: pandas and Matbench, JARVIS, entries of the Materials Project, JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple, TextIO

from jaxmat.data.formats.dicts import is_structure
from jaxmat.data.formats.sites import shortened
from jaxmat.data.layouts.cells import choose_id, choose_structure, holds_structure, labels_of
from jaxmat.data.layouts.json_stream import JsonStream, Value
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError, listed

Open = Callable[[], AbstractContextManager[TextIO]]

_ROWS = ("data", "entries")  # keys whose list is that of the rows
_SMALL = 2**20  # characters of a file that is looked at whole
_LOOKED_AT = 1000  # rows among which one with a structure has to be
LAYOUTS = (
    'a table is {"index": [...], "columns": [...], "data": [[...], ...]} (pandas, '
    'orient="split"), a list of records [{"structure": {...}, "LABEL": ...}, ...], or one record a '
    "line"
)


class _Item(NamedTuple):
    """A row of a table.

    Attributes:
        name: of the row.
        value: its record or list of cells, and the text of that.
    """

    name: str
    value: Value


def read_json(open_text: Open, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a table, or the one structure of a file.

    Args:
        open_text: opens the file from its beginning.
        wanted: what is asked for.

    Raises:
        UserError: it is not JSON, or no layout that is known.
    """
    with open_text() as stream:
        start = stream.read(_SMALL)
        rest = stream.read(1)
    if not start.strip():
        raise UserError("it is empty")
    if start.lstrip()[:1] == "[":
        yield from _stream(open_text, lambda values: _records(values.items(), wanted))
    elif _is_lines(start):
        yield from _stream(open_text, lambda values: _records(_documents(values), wanted))
    elif not rest and is_structure(JsonStream(io.StringIO(start)).value().value):
        yield Row("", "", "", "json", start, [], {})
    else:
        yield from _read_object(open_text, wanted)


def _stream(open_text: Open, read: Callable[[JsonStream], Iterator[Row]]) -> Iterator[Row]:
    with open_text() as stream:
        yield from read(JsonStream(stream))


def _is_lines(start: str) -> bool:
    """Whether a second value follows the first."""
    values = JsonStream(io.StringIO(start))
    try:
        values.value()
        return values.peek() in ("{", "[")
    except UserError:
        return False  # it is longer, or broken, which is found where it is read


def _documents(values: JsonStream) -> Iterator[Value]:
    while values.peek():
        yield values.value()


def _read_object(open_text: Open, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a file that is one JSON object."""
    head, kind = _read_head(open_text)
    if kind == "split":
        yield from _stream(open_text, lambda values: _split_rows(values, head, wanted))
    elif kind == "records":
        yield from _stream(open_text, lambda values: _records(_rows_of(values), wanted))
    elif is_structure(head):
        yield Row("", "", "", "json", json.dumps(head), [], {})
    elif any(holds_structure(value) for value in head.values()):
        yield from _records([Value(head, json.dumps(head))], wanted)
    elif "lattice" in head or "lattice_mat" in head or "sites" in head:
        raise UserError(
            "not a structure: a part of the lattice, the sites or the elements is missing"
        )
    else:
        raise UserError(_explain(head))


def _read_head(open_text: Open) -> tuple[dict[str, Any], str]:
    """Returns all members of an object but its rows, and how these are: split, records or ""."""
    head: dict[str, Any] = {}
    kind = ""
    with open_text() as stream:
        members = JsonStream(stream)
        for key in members.keys():
            if key in _ROWS and members.peek() == "[":
                for item in members.items():
                    kind = kind or ("split" if isinstance(item.value, list) else "records")
                    if {"columns", "index"} <= head.keys() or kind == "records":
                        return head, kind  # all that is needed
                kind = kind or "split"
            else:
                head[key] = members.value().value
        if members.peek():
            raise UserError(f"not JSON: line {members.line()}: more follows after the end")
    return head, kind


def _rows_of(values: JsonStream) -> Iterator[Value]:
    for key in values.keys():
        if key in _ROWS and values.peek() == "[":
            yield from values.items()
        else:
            values.value()


def _split_rows(values: JsonStream, head: dict[str, Any], wanted: Wanted) -> Iterator[Row]:
    index, names = head.get("index"), head.get("columns")
    if not isinstance(index, list) or not isinstance(names, list):
        raise UserError(LAYOUTS)
    _check_names(names)
    rows = _rows_of(values)
    yield from _rows(_indexed(index, rows), names, wanted)


def _indexed(index: list[Any], rows: Iterator[Value]) -> Iterator[_Item]:
    count = 0
    for count, value in enumerate(rows, start=1):
        if count > len(index):
            break
        yield _Item(str(index[count - 1]), value)
    if count != len(index) or not count:
        more = "more" if count > len(index) else str(count)
        raise UserError(f"{len(index)} entries in the index and {more} rows")


def _records(values: Iterable[Value], wanted: Wanted) -> Iterator[Row]:
    items = (_Item(str(number), value) for number, value in enumerate(values))
    return _rows(items, None, wanted)


def _rows(items: Iterator[_Item], names: list[str] | None, wanted: Wanted) -> Iterator[Row]:
    """Yields rows; of their cells the first that holds a structure is the column of all."""
    first: list[_Item] = []
    found: list[str] = []
    for item in items:
        first.append(item)
        cells = _cells(item.value.value, names)
        found = [name for name, value in cells if holds_structure(value)]
        if found or is_structure(item.value.value) or len(first) >= _LOOKED_AT:
            break
    if not first:
        raise UserError("it has 0 rows")
    column = None if not found else choose_structure(found)
    if column is None and not is_structure(first[-1].value.value):
        raise UserError(_no_structure(first[0].value.value, names, len(first)))
    for item in chain(first, items):
        yield _make_row(item, names, column, wanted)


def _cells(value: object, names: list[str] | None) -> list[tuple[str, Any]]:
    if names is not None:
        if not isinstance(value, list) or len(value) != len(names):
            return []
        return list(zip(names, value, strict=True))
    return list(value.items()) if isinstance(value, dict) else []


def _make_row(item: _Item, names: list[str] | None, column: str | None, wanted: Wanted) -> Row:
    name, (value, text) = item
    place = f"row {name}"
    cells = _cells(value, names)
    if names is not None and not cells:
        problem = f"expected a list of {len(names)} values"
        return Row("", name, place, "problem", problem, [], {})
    if column is None and is_structure(value):
        return Row("", name, place, "json", text, [], {})
    structure = dict(cells).get(column) if column else value
    labels = labels_of(cells, column or "")
    id = choose_id(labels, wanted.id_column)
    if isinstance(structure, str):
        return Row(id, name, place, "text", structure, [], labels)
    if not isinstance(structure, dict) or column is None:
        found = "null" if structure is None else shortened(structure)
        problem = f"not a structure: {f'column {column!r} has ' if column else ''}{found}"
        return Row(id, name, place, "problem", problem, [], labels)
    key: list[str | int] = [column if names is None else names.index(column)]
    if not is_structure(structure) and "structure" in structure:
        key.append("structure")
        labels = labels_of([*cells, *structure.items()], column)
    return Row(id, name, place, "json", text, key, labels)


def _check_names(names: list[Any]) -> None:
    wrong = [shortened(name) for name in names if not isinstance(name, str)]
    if wrong:
        raise UserError(f"column names must be words:\n{listed(wrong)}")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"columns that appear more than once:\n{listed(repeated)}")


def _no_structure(value: object, names: list[str] | None, rows: int) -> str:
    if names is not None:
        there = ", ".join(names[:20]) or "none"
        return f"no column holds structures, as far as its first {rows} rows tell; columns: {there}"
    if isinstance(value, dict):
        there = ", ".join(map(repr, list(value)[:10])) or "none"
        return f"no structure in its first {rows} records; keys of the first: {there}. {LAYOUTS}"
    return f"recognised: a list whose first item is {shortened(value)}. {LAYOUTS}"


def _explain(head: dict[str, Any]) -> str:
    """Returns what a JSON object is that is no table, and how to make one of it."""
    if any(
        isinstance(value, dict) and any(holds_structure(one) for one in list(value.values())[:10])
        for value in head.values()
    ):
        return (
            "recognised: pandas, one object a column or a row. Write it as one list a row:\n"
            '  frame = pandas.read_json(FILE)  # orient="index" where each row is an object\n'
            '  frame.to_json("table.json", orient="split")'
        )
    if head.get("@class") == "DataFrame" or "pandas" in str(head.get("@module", "")):
        return (
            "recognised: a DataFrame in monty's encoding. Write it as pandas does:\n"
            "  frame = monty.serialization.loadfn(FILE)\n"
            '  frame.to_json("table.json", orient="split", default_handler=lambda s: s.as_dict())'
        )
    keys = ", ".join(map(repr, list(head)[:10])) or "nothing"
    return f"recognised: a JSON object with {keys}. {LAYOUTS}"
