"""Tables as text: CSV of spreadsheets and pandas, and the id_prop.csv of CGCNN and ALIGNN.

Structures are the names of files, or texts of CIF, POSCAR or JSON in the cells of a column.
"""

from __future__ import annotations

import csv
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxmat.data.formats.recognise import format_of_name
from jaxmat.data.formats.sites import shortened
from jaxmat.data.layouts.cells import (
    ID_NAMES,
    choose_id,
    choose_structure,
    holds_structure,
    is_missing,
    name_columns,
    number,
    tell_apart,
)
from jaxmat.data.layouts.json_stream import MAX_VALUE
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError, listed

_SUFFIXES = ("", ".cif", ".vasp", ".poscar", ".json", ".xyz", ".extxyz", ".cif.gz", ".CIF", ".mcif")
_FILE_NAMES = ("file", "filename", "path", "cif", "poscar", "structure", "structure_file")
# Numbers as spreadsheets write them where the comma is the decimal mark, with groups or without.
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
# What may be thousands as well as a number with three decimals.
_POINT_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_COMMA_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a first line for Excel
_PRINTED = (
    "recognised: a structure as pymatgen prints it, rounded. Write it whole instead:\n"
    '  frame["structure"] = [structure.to(fmt="cif") for structure in frame["structure"]]\n'
    '  frame.to_csv("table.csv")'
)
_LOOKED_AT = 50  # rows that tell the layout
_COMPARED = 5  # lines that have equally many separators


class _Layout(NamedTuple):
    """How the rows of a table are to be read.

    Attributes:
        names: of the columns.
        structure: column with the structures.
        texts: whether it holds them, rather than names of files.
        marks: of the numbers of each column, see `_find_marks`.
        folder: of the files.
    """

    names: list[str]
    structure: int
    texts: bool
    marks: list[str]
    folder: Path


def read_delimited(stream: TextIO, path: Path, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a table.

    Raises:
        UserError: it has no rows, or names of columns that cannot be told apart.
    """
    csv.field_size_limit(MAX_VALUE)
    lines = _Lines(stream)
    delimiter = lines.separator() or _find_delimiter(lines.head)
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

    def separator(self) -> str:
        """Returns what a first line such as sep=; says, and takes the line away; else ""."""
        match = _SEPARATOR.fullmatch(self.head[0]) if self.head else None
        if match:
            self.head[0] = "\n"
        return match[1] if match else ""

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
            raise UserError(
                "not a CSV table: a cell has too many characters, as where a quotation mark is not "
                "closed"
            ) from reason


def _find_delimiter(head: Sequence[str]) -> str:
    """Returns what separates cells: of tab, ; and , what all lines have as often, or most often."""
    bare = re.sub(r'"[^"]*"?', "", "".join(head))
    lines = [line for line in bare.splitlines() if line.strip()][:_COMPARED] or [""]
    counts = {mark: [line.count(mark) for line in lines] for mark in "\t;,"}
    first = {mark: (len({*one}) == 1 and one[0] > 0, one[0]) for mark, one in counts.items()}
    return max(first, key=lambda mark: first[mark]) if any(n for _, n in first.values()) else ","


def _find_layout(
    rows: Sequence[list[str]], delimiter: str, folder: Path, wanted: Wanted
) -> tuple[_Layout, int]:
    """Returns how to read a table of which these are the first rows, and how many are not rows."""
    if not rows:
        raise UserError("it is empty: expected a header line and at least one row")
    first = [cell.strip() for cell in rows[0]]
    has_header = _is_header(first, rows[0], folder)
    body = rows[has_header:]
    # Spreadsheets write empty columns behind the last.
    used = (i for row in rows for i, cell in enumerate(row[: len(first)]) if cell.strip())
    width = max(used, default=0) + 1
    first = first[:width]
    columns = [[row[i] for row in body if i < len(row)] for i in range(width)]
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
        _check_words(names)
        names = tell_apart(names)
    else:
        names = name_columns(width, structure, wanted.labels)
    marks = _find_marks(columns, delimiter)
    return _Layout(names, structure, bool(texts), marks, folder), int(has_header)


def _is_header(cells: Sequence[str], raw: Sequence[str], folder: Path) -> bool:
    """Whether a first line has names: words, none of which is a number, a file or a structure."""
    # A column is often called "structure" in a folder that holds a structure.cif.
    others = [cell for cell in raw if cell.strip().lower() not in _FILE_NAMES]
    if any(holds_structure(cell) or find_file(folder, cell) for cell in others):
        return False
    words = cells[1:] if cells[0] == "" and len(cells) > 1 else cells  # of an index of pandas
    return not any(_is_number(cell.replace(",", ".")) for cell in words)


def _is_number(cell: str) -> bool:
    """Whether a cell is a number and not blank or "na", which may be the name of a column."""
    value = number(cell)
    return value is not None and not math.isnan(value)


def _find_marks(columns: Sequence[Sequence[str]], delimiter: str) -> list[str]:
    """Returns the decimal mark of each column, after the mark of thousands if it has one.

    Where a column does not tell, the others do, for a table has one decimal mark. A semicolon
    between the cells speaks for the comma; between tabs, one column with points is enough against.

    Args:
        columns: their first cells.
        delimiter: between cells; a comma cannot be in a number then.

    Returns:
        ".", ",", ".,", or "?": cells with a comma have decimals, others may have thousands.
    """
    if delimiter == ",":
        return ["."] * len(columns)
    own = [_own_marks([cell.strip() for cell in cells]) for cells in columns]
    if delimiter == "\t" and "." in own:
        return ["."] * len(columns)
    has_comma = "," in own or ".," in own
    # Of columns that tell nothing.
    default = "?" if has_comma else "," if delimiter == ";" and "." not in own else "."
    return [default if mark == "" else mark for mark in own]


def _own_marks(cells: Sequence[str]) -> str:
    """Returns the marks of a column by its own cells, "" where they do not tell.

    Where they contradict each other, points are decimal, and the others will be named.
    """
    commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    points = [cell for cell in cells if _POINT.fullmatch(cell)]
    grouped = any("." in cell for cell in commas)
    if not all(map(_POINT_GROUPS.fullmatch, points)) or (points and commas and not grouped):
        return "."
    if grouped:
        return ".,"
    return "" if all(map(_COMMA_GROUPS.fullmatch, commas)) else ","


def _with_point(cell: str, marks: str) -> str:
    """Returns a cell with a decimal point and no marks of thousands, if it is a number.

    Args:
        cell: of a table.
        marks: see `_find_marks`; where points are decimal, a comma is something else.
    """
    if marks != "." and _DECIMAL_COMMA.fullmatch(cell):
        return cell.replace(".", "").replace(",", ".")
    if marks in (".,", "?") and _POINT_GROUPS.fullmatch(cell):
        whole = cell.replace(".", "")
        return whole if marks == ".," else f"{cell} (other columns have decimal commas: {whole}?)"
    return cell


def _find_files(columns: Sequence[Sequence[str]], names: Sequence[str], folder: Path) -> int:
    """Returns the column with the names of files, the first where nothing speaks for one.

    What is called so goes before what is not, whole names of files before those that lack a suffix
    (a number may be the name of a file by chance), more files before fewer.

    Raises:
        UserError: two columns name different files, and nothing speaks for one of them.
    """
    found = [[find_file(folder, cell) for cell in cells] for cells in columns]
    ranks = []
    for name, cells, files in zip(names, columns, found, strict=True):
        there = [file for file in files if file]
        called = name.lower() in _FILE_NAMES and (
            bool(there) or any(format_of_name(cell.strip()) for cell in cells)
        )
        whole = sum(
            file is not None and cell.strip().replace("\\", "/").endswith(file.name)
            for cell, file in zip(cells, files, strict=True)
        )
        is_id = bool(there) and name.lower() in ID_NAMES
        ranks.append((called, whole, len(there), is_id, len(set(there))))
    best = max(range(len(ranks)), key=ranks.__getitem__)
    if not any(ranks[best]):
        lower = [name.lower() for name in names]
        return next((lower.index(name) for name in _FILE_NAMES if name in lower), 0)
    rivals = [i for i, rank in enumerate(ranks) if rank == ranks[best] and found[i] != found[best]]
    if rivals and any(names):
        shown = [repr(names[i] or f"column {i + 1}") for i in (best, rivals[0])]
        raise UserError(
            f"the columns {shown[0]} and {shown[1]} name different files: call the one with the "
            "structures 'file'"
        )
    return best


def _check_words(names: Sequence[str]) -> None:
    if wrong := [shortened(name) for name in names if _is_number(name)]:
        raise UserError(
            f"column names must be words (a table starts with a header line):\n{listed(wrong)}"
        )


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
        return Row("", name, place, "malformed", problem, [], {})
    labels: dict[str, Any] = {}
    for i, column in enumerate(names):
        if i != layout.structure:
            labels[column] = _with_point(stripped[i], layout.marks[i])
    id = choose_id(labels, wanted.id_column)
    if layout.texts:
        return Row(id, name, place, "text", content, [], labels)
    path = find_file(layout.folder, content)
    if path is None:
        if content.lstrip().startswith("Full Formula ("):
            return Row(id, name, place, "problem", _PRINTED, [], labels)
        return Row(id, name, place, "missing", os.path.join(layout.folder, content), [], labels)
    return Row(id, name, place, "path", str(path), [], labels)


def tell_missing(path: str) -> str:
    """Returns what is said where a row names a file that is not there."""
    folder, name = os.path.split(path)
    tried = ", ".join(_SUFFIXES[1:4])
    return f"no file {shortened(name)} (or with {tried}, ... added) in {folder}"


def find_file(folder: str | Path, cell: str) -> Path | None:
    """Returns the file that a cell names, whose suffix may be left out, None if there is none."""
    name = cell.strip()
    if not name or len(name) > 4000 or "\n" in name or is_missing(name):
        return None
    root, suffix = os.path.splitext(slashed := name.replace("\\", "/"))
    others = [slashed, root + suffix.lower(), root + suffix.upper()]
    for written in dict.fromkeys([name, *others]):
        for suffix in _SUFFIXES:
            # No pathlib: it takes longer than all the rest. An id may contain a dot.
            path = os.path.join(folder, written + suffix)
            try:
                if not stat.S_ISDIR(os.stat(path).st_mode):
                    return Path(path)
            except (OSError, ValueError):  # there is none, or the name is too long
                continue
    return None
