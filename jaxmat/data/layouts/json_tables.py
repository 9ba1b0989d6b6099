"""Tables in JSON: pandas in all its forms, Matbench, JARVIS, entries, JSON lines, one structure.

What a file is, is told by its first rows, but for objects of columns (pandas, orient="columns"),
whose labels may come after all structures: these are read twice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TextIO

from jaxmat.data.formats.dicts import is_structure
from jaxmat.data.layouts.cells import (
    STRUCTURE_NAMES,
    choose_structure,
    holds_structure,
    is_text_list,
)
from jaxmat.data.layouts.json_rows import LAYOUTS, Item, read_items, row_of
from jaxmat.data.layouts.json_stream import MAX_VALUE, JsonStream, Value
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError

Open = Callable[[], AbstractContextManager[TextIO]]

_ROWS = ("data", "entries")  # keys whose list is that of the rows
_SMALL = 2**20  # characters of a file that is looked at whole
_LEFT_OUT: dict[str, Any] = {}  # stands for what is no label
# Between values that follow each other on lines; no text in JSON has a line break.
_NEXT_LINE = re.compile(r"[}\]][ \t\r]*\n\s*[{\[]")
_MARGIN = 1000  # characters of blanks between two values, at most
_ENOUGH = 20  # members of an object that tell that all are rows
_MOST_KEPT = 1000  # members of which more than what may be a label is kept


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
    is_lines = _is_lines(start) if not rest else _has_next_value(open_text, start)
    if start.lstrip()[:1] == "[" and not is_lines:
        yield from _stream(open_text, lambda values: _numbered(_to_end(values), wanted))
    elif is_lines:
        yield from _stream(open_text, lambda values: _numbered(_documents(values), wanted))
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


def _has_next_value(open_text: Open, start: str) -> bool:
    """Whether a second value follows the first, which is looked for as far as a row may go.

    Args:
        open_text: opens the file from its beginning.
        start: what it begins with.
    """
    if _is_lines(start):
        return True
    with open_text() as stream:
        text, left = "", MAX_VALUE
        while left > 0 and (more := stream.read(_SMALL)):
            text = text[-_MARGIN:] + more
            if _NEXT_LINE.search(text):
                return True
            left -= len(more)
    return False


def _documents(values: JsonStream) -> Iterator[Value]:
    while values.peek():
        yield values.value()


def _to_end(values: JsonStream) -> Iterator[Value]:
    """Yields the items of a list, after which nothing may follow."""
    yield from values.items()
    _end(values)


def _end(values: JsonStream) -> None:
    if values.peek():
        raise UserError(f"not JSON: line {values.line()}: more follows after the end")


def _numbered(values: Iterable[Value], wanted: Wanted) -> Iterator[Row]:
    items = (Item(str(number), *value) for number, value in enumerate(values))
    return read_items(items, None, wanted)


class _Outline:
    """What the members of an object are, without its structures.

    Attributes:
        rows: how the rows in a member of it are: "split", "records", or "" where there are none.
        plain: members that are not objects, by key; of those of a "split" index and columns.
        structures: keys of the members that are structures, or texts of some.
        holding: keys of the objects that hold structures.
        labels: the other objects, by key.
        are_rows: whether an object that holds structures is a row of a table.
        has_others: whether there are numbers, lists and the like.
    """

    def __init__(self) -> None:
        self.rows = ""
        self.plain: dict[str, Any] = {}
        self.structures: list[str] = []
        self.holding: list[str] = []
        self.labels: dict[str, dict[str, Any]] = {}
        self.are_rows = False
        self.has_others = False

    def add(self, key: str, values: JsonStream) -> None:
        """Takes in the member that is next."""
        if values.peek() == "{":
            self._add_object(key, values)
            return
        value = values.value().value
        if holds_structure(value):
            self.structures.append(key)
        else:
            self.has_others = True
        self.plain[key] = value

    def _add_object(self, key: str, values: JsonStream) -> None:
        kept: dict[str, Any] = {}
        held: set[str] = set()
        for name in values.keys():
            value = values.value().value
            if holds_structure(value):
                held.add(name if len(held) < _MOST_KEPT else "")
            else:
                may_be_label = not isinstance(value, (dict, list)) or is_text_list(value)
                kept[name] = value if may_be_label or len(kept) < _MOST_KEPT else _LEFT_OUT
        if is_structure(kept):
            self.structures.append(key)
        elif held:
            self.holding.append(key)
            others = any(value is not None for value in kept.values())
            self.are_rows = self.are_rows or others or not held.isdisjoint(STRUCTURE_NAMES)
        else:
            self.labels[key] = kept

    def keys(self) -> dict[str, Any]:
        """Returns all keys, with the values of those that are not objects."""
        return {**self.plain, **dict.fromkeys([*self.structures, *self.holding, *self.labels])}

    def layout(self, whole: bool) -> str:
        """Returns "structure", "record", "rows", "columns", or "" for none of them.

        Args:
            whole: whether all members are known; else "" stands for not yet, too.
        """
        found = len(self.structures) + len(self.holding)
        if not whole:
            if found != _ENOUGH or self.labels or self.has_others:
                return ""
            return "rows" if self._all_rows() else ""
        if is_structure(self.keys()):
            return "structure"
        if self.has_others or (self.structures and self.labels):
            return "record" if self.structures or self.are_rows else ""
        if self._all_rows():
            return "rows" if found > 1 or self.holding else "record"
        return "columns" if self.holding and not self.structures else ""

    def _all_rows(self) -> bool:
        return bool(self.structures) != bool(self.holding) and (not self.holding or self.are_rows)


def _read_object(open_text: Open, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a file that is one JSON object."""
    outline = _outline(open_text)
    if outline.rows == "split":
        yield from _stream(open_text, lambda values: _split_rows(values, outline.plain, wanted))
        return
    if outline.rows == "records":
        yield from _stream(open_text, lambda values: _numbered(_rows_of(values), wanted))
        return
    layout = outline.layout(whole=True)
    if layout == "structure":
        yield from _stream(open_text, _only_structure)
    elif layout == "record":
        yield from _stream(open_text, lambda values: _only_record(values, wanted))
    elif layout == "rows":
        yield from _stream(open_text, lambda values: read_items(_members(values), None, wanted))
    elif layout == "columns":
        yield from _stream(open_text, lambda values: _column_rows(values, outline, wanted))
    else:
        raise UserError(_explain(outline.keys()))


def _outline(open_text: Open) -> _Outline:
    """Returns what an object is like, as soon as it is known."""
    outline = _Outline()
    with open_text() as stream:
        values = JsonStream(stream)
        for key in values.keys():
            if key not in _ROWS or values.peek() != "[":
                outline.add(key, values)
                if outline.layout(whole=False):
                    return outline
                continue
            for item in values.items():
                outline.rows = outline.rows or _kind(item.value)
                if outline.rows == "records" or {"columns", "index"} <= outline.plain.keys():
                    return outline  # all that is needed
            outline.rows = outline.rows or "split"
        _end(values)
    return outline


def _kind(row: object) -> str:
    return "split" if isinstance(row, list) else "records"


def _rows_of(values: JsonStream) -> Iterator[Value]:
    for key in values.keys():
        if key in _ROWS and values.peek() == "[":
            yield from values.items()
        else:
            values.value()
    _end(values)


def _members(values: JsonStream) -> Iterator[Item]:
    for key in values.keys():
        yield Item(key, *values.value())
    _end(values)


def _split_rows(values: JsonStream, head: dict[str, Any], wanted: Wanted) -> Iterator[Row]:
    index, names = head.get("index"), head.get("columns")
    if not isinstance(index, list) or not isinstance(names, list):
        raise UserError(LAYOUTS)
    yield from read_items(_indexed(index, _rows_of(values)), names, wanted)


def _indexed(index: list[Any], rows: Iterator[Value]) -> Iterator[Item]:
    count = 0
    for count, value in enumerate(rows, start=1):
        if count > len(index):
            break
        yield Item(str(index[count - 1]), *value)
    if count != len(index) or not count:
        more = "more" if count > len(index) else str(count)
        raise UserError(f"{len(index)} entries in the index and {more} rows")


def _only_structure(values: JsonStream) -> Iterator[Row]:
    yield Row("", "", "", "json", values.value().text, [], {})


def _only_record(values: JsonStream, wanted: Wanted) -> Iterator[Row]:
    """Yields the row of a file with one record, which is named by the file."""
    for row in read_items(iter([Item("", *values.value())]), None, wanted):
        yield row._replace(place="")


def _column_rows(values: JsonStream, outline: _Outline, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of an object of columns: {"structure": {"0": ...}, "gap": {"0": ...}}."""
    column = choose_structure(outline.holding)
    for key in values.keys():
        if key != column:
            values.value()
            continue
        for name in values.keys():
            item = Item(name, *values.value())
            cells = [(label, cells.get(name)) for label, cells in outline.labels.items()]
            yield row_of(item, item.value, [], cells, wanted, f"column {column!r} has ")
        return


def _explain(head: dict[str, Any]) -> str:
    """Returns what a JSON object is that is not a table, and how to make one of it."""
    if "lattice" in head or "lattice_mat" in head or "sites" in head:
        return "not a structure: a part of the lattice, the sites or the elements is missing"
    if head.get("@class") == "DataFrame" or "pandas" in str(head.get("@module", "")):
        return (
            "recognised: a DataFrame in monty's encoding. Write it as pandas does:\n"
            "  frame = monty.serialization.loadfn(FILE)\n"
            '  frame.to_json("table.json", orient="split", default_handler=lambda s: s.as_dict())'
        )
    keys = ", ".join(map(repr, list(head)[:10])) or "nothing"
    return f"recognised: a JSON object with {keys}. {LAYOUTS}"
