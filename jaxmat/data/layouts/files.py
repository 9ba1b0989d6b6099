"""Any file becomes rows; which format or layout it has is told by what is in it.

The rows of a file that holds one structure are one. Nothing is kept of the rows that went before.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from jaxmat.crystals.checks import MAX_SITES
from jaxmat.data.formats.extxyz import Frame, read_fields, read_frames
from jaxmat.data.formats.recognise import FORMATS, find_format, parse_text, unpacked_name
from jaxmat.data.formats.sites import Parsed, shortened
from jaxmat.data.layouts.cells import choose_id, is_missing
from jaxmat.data.layouts.cif_blocks import read_blocks
from jaxmat.data.layouts.delimited import read_delimited
from jaxmat.data.layouts.json_stream import MAX_VALUE
from jaxmat.data.layouts.json_tables import read_json
from jaxmat.data.layouts.opening import Position, find_encoding, open_bytes, open_text
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError

# The tables that folders of CGCNN and ALIGNN hold, whatever their case and packing.
FOLDER_TABLES = ("id_prop.csv", "id_prop.json")
_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_OF_THE_CELL = ("", "lattice", "pbc", "properties")
# Of a number that Fortran wrote.
_D_EXPONENT = re.compile(r"^\s*([+-]?[\d.]+)[dD]([+-]?\d+)\s*$", re.ASCII)
_SQLITE = b"SQLite format 3\0"
# What ase.io.write and ase.db write to *.json.
_ASE_JSON = re.compile(rb'\s*\{"\d+": \{(?=.*"ctime":)', re.DOTALL)
_HEAD = 2**15
_DATA = re.compile(r"^\s*data_", re.IGNORECASE | re.MULTILINE)


def read_rows(source: str, wanted: Wanted, position: Position | None = None) -> Iterator[Row]:
    """Yields the rows of a file.

    Args:
        source: path of the file.
        wanted: what is asked for.
        position: is told of the file.

    Raises:
        UserError: it cannot be read, or only up to here.
    """
    for row in islice(_read(source, wanted, position), wanted.start, None):
        told = row.kind != "malformed"
        if told and wanted.labels is not None and not _has_label(row, wanted.labels):
            row = row._replace(kind="unlabelled", content="", key=[])
        yield row


def _has_label(row: Row, names: tuple[str, ...]) -> bool:
    cells = (row.labels.get(name) for name in names)
    return any(cell is not None and not is_missing(str(cell)) for cell in cells)


def _read(source: str, wanted: Wanted, position: Position | None) -> Iterator[Row]:
    path = Path(source)
    with open_bytes(path) as stream:
        head = stream.read(_HEAD)
    kind = "db" if head.startswith(_SQLITE) else "json" if _ASE_JSON.match(head) else ""
    if kind:
        from jaxmat.data.layouts.ase_rows import read_ase  # an extra

        yield from read_ase(path, kind, wanted)
        return
    text = head.decode(find_encoding(head), "replace")
    plain = unpacked_name(path.name.lower())
    format = find_format(text, "" if plain.endswith(_TABLE_SUFFIXES) else plain)
    if format == "json":
        for row in read_json(lambda: _opened(path, position), wanted):
            yield row._replace(name=row.name or source)
    elif format == "extxyz":
        with _opened(path, position) as lines:
            yield from _frame_rows(lines, source, wanted)
    elif format == "cif" and (len(head) == _HEAD or len(_DATA.findall(text)) > 1):
        with _opened(path, position) as lines:
            yield from read_blocks(_bounded(lines), source)
    elif format:
        yield Row("", source, "", "path", source, [], {})
    elif plain.endswith(_TABLE_SUFFIXES) or _is_delimited(text):
        with _opened(path, position) as lines:
            yield from read_delimited(lines, path, wanted)
    elif not text.strip():
        raise UserError("it is empty")
    else:
        raise UserError(
            f"unknown format: expected {FORMATS}, or a table of them; it begins with "
            f"{shortened(text[:200])}. ase reads many others:\n"
            '  crystals = ase.io.read(FILE, ":")\n'
            '  ase.io.write("table.xyz", crystals, format="extxyz")'
        )


@contextmanager
def _opened(path: Path, position: Position | None) -> Iterator[TextIO]:
    with open_bytes(path, position) as stream:
        yield open_text(stream)


def _is_delimited(text: str) -> bool:
    """Whether the first lines of a text have equally many cells, more than one."""
    lines = [line for line in text.splitlines()[:3] if line.strip()]
    return len(lines) > 1 and any(
        len({line.count(mark) for line in lines[:2]}) == 1 and lines[0].count(mark)
        for mark in "\t;,"
    )


def _frame_rows(lines: TextIO, source: str, wanted: Wanted) -> Iterator[Row]:
    """Yields the frames of extended XYZ, numbered where there are several."""
    previous: Row | None = None
    number = 0
    for number, frame in enumerate(read_frames(_bounded(lines))):
        if previous is not None:
            yield previous._replace(name=f"{source}@{number - 1}", place=f"frame {number - 1}")
        if number and not 0 <= frame.sites <= MAX_SITES:
            raise UserError(
                f"frame {number}: expected a number of atoms, found {shortened(frame.lines[0])}; "
                "from here on frames cannot be told apart"
            )
        previous = _frame_row(frame, source, wanted)
    if previous is None:
        raise UserError("it is empty")
    if number:
        previous = previous._replace(name=f"{source}@{number}", place=f"frame {number}")
    yield previous


def _frame_row(frame: Frame, source: str, wanted: Wanted) -> Row:
    labels: dict[str, str] = {}
    if len(frame.lines) > 1:
        try:
            fields = read_fields(frame.lines[1])
        except UserError as problem:
            return Row("", source, "", "malformed", str(problem), [], {})
        labels = {
            key: _D_EXPONENT.sub(r"\1e\2", value)
            for key, value in fields.items()
            if key.lower() not in _OF_THE_CELL
        }
    content = "".join(frame.lines).strip("\n") or "?"
    return Row(choose_id(labels, wanted.id_column), source, "", "frame", content, [], labels)


def _bounded(stream: TextIO) -> Iterator[str]:
    while line := stream.readline(MAX_VALUE + 1):
        if len(line) > MAX_VALUE:
            raise UserError(f"a line has more than {MAX_VALUE} characters")
        yield line


def read_structure_file(path: Path) -> Parsed:
    """Makes a crystal of a file that holds one.

    Raises:
        UserError: it cannot be read, or holds none or several.
    """
    with open_bytes(path) as stream:
        data = stream.read(MAX_VALUE + 1)
    if len(data) > MAX_VALUE:
        raise UserError(f"it has more than {MAX_VALUE} bytes: not a crystal")
    with open_text(io.BufferedReader(io.BytesIO(data))) as text:
        return parse_text(text.read(), path.name)
