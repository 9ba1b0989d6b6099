"""Tables as text: CSV of spreadsheets and pandas, and the id_prop.csv of CGCNN and ALIGNN.

Structures are the names of files, or texts of CIF, POSCAR or JSON in the cells of a column.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxmat.data.formats.sites import shortened
from jaxmat.data.layouts.cells import (
    MISSING,
    choose_id,
    choose_structure,
    holds_structure,
    number,
)
from jaxmat.data.layouts.json_stream import MAX_VALUE
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError, listed

_SUFFIXES = ("", ".cif", ".vasp", ".poscar", ".json", ".xyz", ".extxyz", ".cif.gz", ".CIF", ".mcif")
_FILE_NAMES = ("file", "filename", "path", "cif", "poscar", "structure", "structure_file")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_LOOKED_AT = 50  # rows that tell the layout


class _Layout(NamedTuple):
    """How the rows of a table are to be read.

    Attributes:
        names: of the columns.
        structure: column with the structures.
        texts: whether it holds them, rather than names of files.
        decimal_comma: whether 1,5 is a number.
        folder: of the files.
    """

    names: list[str]
    structure: int
    texts: bool
    decimal_comma: bool
    folder: Path


def read_delimited(stream: TextIO, path: Path, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a table.

    Raises:
        UserError: it has no rows, or names of columns that cannot be told apart.
    """
    csv.field_size_limit(MAX_VALUE)
    lines = _Lines(stream)
    delimiter = _find_delimiter(lines.head)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    numbered = (
        (reader.line_num, cells) for cells in _checked(reader) if any(map(str.strip, cells))
    )
    head = list(islice(numbered, _LOOKED_AT))
    layout, skipped = _find_layout([cells for _, cells in head], delimiter, path.parent, wanted)
    if len(head) == skipped:
        raise UserError("expected at least one row below the header line")
    for count, (line, cells) in enumerate(chain(head[skipped:], numbered)):
        yield _make_row(layout, cells, count, line, wanted)


class _Lines:
    """The lines of a stream, the beginning of which is looked at before; none is endless."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.head = list(islice(self._read(), _LOOKED_AT))

    def __iter__(self) -> Iterator[str]:
        return chain(self.head, self._read())

    def _read(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_VALUE + 1):
            if len(line) > MAX_VALUE:
                raise UserError(f"a line has more than {MAX_VALUE} characters")
            yield line


def _checked(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            raise UserError(f"not a CSV table ({reason})") from reason


def _find_delimiter(head: Sequence[str]) -> str:
    """Returns what separates the cells of the first line: the most frequent of tab, ; and ,."""
    first = re.sub(r'"[^"]*"?', "", next((line for line in head if line.strip()), ""))
    counts = {mark: first.count(mark) for mark in "\t;,"}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _find_layout(
    rows: Sequence[list[str]], delimiter: str, folder: Path, wanted: Wanted
) -> tuple[_Layout, int]:
    """Returns how to read a table of which these are the first rows, and how many are no rows."""
    if not rows:
        raise UserError("it is empty: expected a header line and at least one row")
    first = [cell.strip() for cell in rows[0]]
    has_header = _is_header(first, rows[0], folder)
    body = rows[has_header:]
    width = len(first)
    columns = [[row[i] for row in body if i < len(row)] for i in range(width)] if body else []
    comma = delimiter in ";\t"
    texts = [i for i, cells in enumerate(columns) if any(map(holds_structure, cells))]
    names = first if has_header else [""] * width
    if texts:
        structure = texts[0]
        if has_header and len(texts) > 1:
            structure = names.index(choose_structure([names[i] for i in texts]))
    else:
        structure = _find_files(columns, names, folder)
    if has_header:
        names = [name or ("index" if i == 0 else f"column {i + 1}") for i, name in enumerate(first)]
        _check_names(names)
    else:
        names = _name_columns(width, structure, wanted.labels)
    return _Layout(names, structure, bool(texts), comma, folder), int(has_header)


def _is_header(cells: Sequence[str], raw: Sequence[str], folder: Path) -> bool:
    """Whether a first line has names: words, none of which is a number, a file or a structure."""
    # A column is often called "structure" in a folder that holds a structure.cif.
    others = [cell for cell in raw if cell.strip().lower() not in _FILE_NAMES]
    if any(holds_structure(cell) or _find_file(folder, cell) for cell in others):
        return False
    words = cells[1:] if cells[0] == "" and len(cells) > 1 else cells  # of an index of pandas
    numbers = [number(cell.replace(",", ".")) for cell in words]
    return all(value is None for value in numbers)


def _find_files(columns: Sequence[Sequence[str]], names: Sequence[str], folder: Path) -> int:
    """Returns the column with the names of files: most of them are there, or it is called so."""
    hits = [sum(_find_file(folder, cell) is not None for cell in cells) for cells in columns]
    if any(hits):
        return hits.index(max(hits))
    lower = [name.lower() for name in names]
    known = [lower.index(name) for name in _FILE_NAMES if name in lower]
    return known[0] if known else 0


def _name_columns(width: int, structure: int, wanted: Sequence[str] | None) -> list[str]:
    """Returns names for the columns of a table without a header."""
    labels = [i for i in range(width) if i != structure]
    if wanted is not None and len(wanted) == len(labels) and not _are_defaults(wanted):
        given = list(wanted)
    else:
        given = ["target"] if len(labels) == 1 else [f"target_{i + 1}" for i in range(len(labels))]
    names = [""] * width
    for i, name in zip(labels, given, strict=True):
        names[i] = name
    names[structure] = "file" if "file" not in given else "structure file"
    return names


def _are_defaults(names: Sequence[str]) -> bool:
    return any(re.fullmatch(r"target(_\d+)?", name) for name in names)


def _check_names(names: Sequence[str]) -> None:
    wrong = [shortened(name) for name in names if number(name) is not None]
    if wrong:
        raise UserError(
            f"column names must be words (a table starts with a header line):\n{listed(wrong)}"
        )
    repeated = [shortened(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"columns that appear more than once:\n{listed(repeated)}")


def _make_row(layout: _Layout, cells: list[str], count: int, line: int, wanted: Wanted) -> Row:
    names, place = layout.names, f"line {line}"
    while len(cells) > len(names) and not cells[-1].strip():  # as spreadsheets leave them
        cells.pop()
    stripped = [cell.strip() for cell in cells]
    content = cells[layout.structure] if layout.structure < len(cells) else ""
    first = stripped[0] if stripped else ""
    own = first if names[0] == "index" else str(count)
    name = own if layout.texts else content.strip()[:200]
    if len(cells) != len(names):
        problem = f"{len(cells)} cells, the header has {len(names)}"
        return Row("", name, place, "problem", problem, [], {})
    labels: dict[str, Any] = {}
    for i, column in enumerate(names):
        if i != layout.structure:
            cell = stripped[i]
            comma = layout.decimal_comma and _DECIMAL_COMMA.fullmatch(cell)
            labels[column] = cell.replace(",", ".") if comma else cell
    id = choose_id(labels, wanted.id_column)
    if layout.texts:
        return Row(id, name, place, "text", content, [], labels)
    path = _find_file(layout.folder, content)
    if path is None:
        tried = ", ".join(_SUFFIXES[1:4])
        problem = f"no file {shortened(content)} (or with {tried}, ... added) in {layout.folder}"
        return Row(id, name, place, "problem", problem, [], labels)
    return Row(id, name, place, "path", str(path), [], labels)


def _find_file(folder: Path, cell: str) -> Path | None:
    """Returns the file that a cell names, whose suffix may be left out, None if there is none."""
    name = cell.strip()
    if not name or len(name) > 4000 or "\n" in name or name.lower() in MISSING:
        return None
    for written in dict.fromkeys([name, name.replace("\\", "/")]):
        for suffix in _SUFFIXES:
            # No pathlib: it takes longer than all the rest. An id may contain a dot.
            path = os.path.join(folder, written + suffix)
            try:
                if not stat.S_ISDIR(os.stat(path).st_mode):
                    return Path(path)
            except (OSError, ValueError):  # there is none, or the name is too long
                continue
    return None
