"""A process that reads what comes from outside: python -m jaxmat.data.reading_worker MEGABYTES.

It has a limit of memory, and the process that started it kills it where it does not go on in time
(`jaxmat.data.reading_pool`). A task comes in as a line of JSON; out come messages: the lengths of
two parts, a JSON value and the arrays of a crystal.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxmat.crystals.checks import find_problem
from jaxmat.crystals.content import Content
from jaxmat.data.formats.dicts import parse_dict
from jaxmat.data.formats.extxyz import parse_frame, read_frames
from jaxmat.data.formats.recognise import parse_text
from jaxmat.data.formats.sites import Parsed, one_atom_a_site
from jaxmat.data.layouts.delimited import tell_missing
from jaxmat.data.layouts.files import read_rows, read_structure_file
from jaxmat.data.layouts.opening import Position
from jaxmat.data.layouts.rows import FileStamp, Row, Wanted, file_stamp
from jaxmat.errors import UserError

LENGTHS = struct.Struct("<II")
# Raw rows that travel together: few messages, and soon some for each worker.
_BATCH_ROWS, _BATCH_CHARACTERS = 32, 2**17
# Rows without a crystal, and their share, with which a file is not read on.
_MANY, _MOST = 10_000, 0.9
# What a reason begins with, where it tells the kind of problem.
KINDS = ("size", "disorder", "element", "lattice", "coordinates", "density", "overlap", "formula")


class Tally:
    """Counts the rows of a file, to end one in which hardly any holds a crystal.

    Attributes:
        hopeless: whether so many hold none that the others are not worth their time.
    """

    def __init__(self) -> None:
        """Of no rows yet."""
        self._rows = self._failed = 0
        self.hopeless = False

    def add(self, failed: bool) -> bool:
        """Counts a row; returns `hopeless`."""
        self._rows += 1
        self._failed += failed
        self.hopeless = self._failed > _MANY and self._failed > _MOST * self._rows
        return self.hopeless

    def describe(self) -> str:
        """Returns why the rest of the file is left out."""
        return (
            f"of its first {self._rows} rows {self._failed} hold no crystal: the rest is left out"
        )


class Finished(NamedTuple):
    """A row that is read.

    Attributes:
        row: its id, name, place and labels; nothing else.
        content: the crystal, None where there is none.
        reason: why there is no crystal, "" where there is one or none was asked for.
        remarks: on the crystal.
        share: of all sources that is read with it, 0 to 1.
        file: that a row names, see `file_stamp`; none where all is in the table.
    """

    row: Row
    content: Content | None
    reason: str
    remarks: list[str]
    share: float = 0.0
    file: FileStamp | None = None


class Message(NamedTuple):
    """What a worker says.

    Attributes:
        kind: "row", a crystal or why there is none; "begin", the row of a table that is read now;
            "rows", the share of the file that is read, and rows that others are to read; "end" of a
            source or task; "limited", whether memory is.
        value: of JSON; of a row its id, name, place, labels, reason, remarks and file.
        content: of a row with a crystal.
    """

    kind: str
    value: Any
    content: Content | None


def read_source(
    source: str,
    wanted: Wanted,
    megabytes: int,
    skip: int = 0,
    begin: Callable[[Row], None] = lambda row: None,
) -> Iterator[Finished]:
    """Yields what becomes of the rows of a file, of one that cannot be read a reason.

    Args:
        source: path of the file.
        wanted: what is asked for.
        megabytes: of memory that this process may take, for a message.
        skip: rows that were done before.
        begin: is told of each row before its crystal is made.
    """
    tally = Tally()
    rows = _guarded(read_rows(source, wanted), source, megabytes)
    for row in islice(rows, skip, None):
        begin(row)
        finished = try_row(row, megabytes)
        yield finished
        if tally.add(bool(finished.reason)):
            yield without(source, tally.describe())
            return


def without(source: str, reason: str) -> Finished:
    """Returns what is said of a source that gives no more crystals."""
    return Finished(Row("", source, "", "", "", [], {}), None, reason, [])


def try_row(row: Row, megabytes: int) -> Finished:
    """Returns what becomes of a row; see `read_source` for the arguments."""
    about = row._replace(kind="", content="", key=[])
    if row.kind == "unlabelled":
        return Finished(about, None, "", [])
    # Of a file before it is read: what is written later is another.
    file = file_stamp(row.content) if row.kind in ("path", "missing") else None
    try:
        content, remarks = read_row(row)
    except Exception as reason:
        return Finished(about, None, _tell(reason, megabytes), [], file=file)
    return Finished(about, content, "", remarks, file=file)


def read_row(row: Row) -> tuple[Content, list[str]]:
    """Makes the crystal of a row, and remarks on it.

    Raises:
        UserError: there is none that can be used.
    """
    try:
        content, remarks = one_atom_a_site(_parse(row))
    except UserError as problem:
        known = str(problem).partition(":")[0] in KINDS
        raise problem if known else UserError(f"unreadable: {problem}") from problem
    if reason := find_problem(content):
        raise UserError(reason)
    return content, remarks


def _parse(row: Row) -> Parsed:
    if row.kind in ("problem", "malformed"):
        raise UserError(row.content)
    if row.kind == "missing":
        raise UserError(tell_missing(row.content))
    if row.kind == "path":
        return read_structure_file(Path(row.content))
    if row.kind == "text":
        return parse_text(row.content)
    if row.kind == "frame":
        return parse_frame(next(read_frames(iter(row.content.splitlines()))))
    value = json.loads(row.content)
    for key in row.key:
        value = value[key]
    return parse_dict(value)


def main(megabytes: str) -> None:
    """Does the tasks that come in by standard input, until it is closed."""
    # Whatever else is printed must not come between the messages.
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    limited = _limit_memory(int(megabytes))
    # What is loaded or set up on first use takes no time from a file then, and works within limits.
    read_row(
        Row("", "", "", "text", "Na\n4.0\n1 0 0\n0 1 0\n0 0 1\nNa\n1\nCartesian\n0 0 0\n", [], {})
    )
    _send(out, "limited", limited)

    def begin(row: Row) -> None:
        if row.place:  # of a table: should the process be stopped now, the others are read after it
            _send(out, "begin", row._replace(content=""))

    for line in sys.stdin.buffer:
        task = json.loads(line)
        labels = task["labels"] and tuple(task["labels"])
        wanted = Wanted(task["id_column"], labels, task["start"])
        if "rows" in task:
            for row in task["rows"]:
                _send_row(out, try_row(Row(*row), int(megabytes)))
        elif "open" in task:
            _open(out, task["open"], wanted, int(megabytes))
        else:
            skips = chain([task["skip"]], repeat(0))
            for source, skip in zip(task["sources"], skips, strict=False):
                for finished in read_source(source, wanted, int(megabytes), skip, begin):
                    _send_row(out, finished)
                _send(out, "end", source)
        _send(out, "end", "")


def _limit_memory(megabytes: int) -> bool:
    """Returns whether the system limits the memory of this process from now on."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))
    except (ImportError, AttributeError, ValueError, OSError):
        return False
    return sys.platform == "linux"  # others take the limit and do not keep to it


def _guarded(rows: Iterator[Row], source: str, megabytes: int) -> Iterator[Row]:
    """Yields rows; what ends them before their time is one more."""
    try:
        yield from rows
    except Exception as reason:
        told = _tell(reason, megabytes).removeprefix("unreadable: ")
        yield Row("", source, "", "problem", told, [], {})


def _tell(reason: Exception, megabytes: int) -> str:
    if isinstance(reason, UserError):
        return str(reason)
    if isinstance(reason, MemoryError):
        return f"size: reading it takes more than {megabytes} MB of memory"
    if isinstance(reason, OSError):
        return f"unreadable: the system says: {reason.strerror}"
    # No input should come here: what malformed input may raise is told above.
    return f"unreadable: {type(reason).__name__} ({str(reason)[:100]})"


def _open(out: BinaryIO, source: str, wanted: Wanted, megabytes: int) -> None:
    position = Position()
    batch: list[Row] = []
    characters = 0
    for row in _guarded(read_rows(source, wanted, position), source, megabytes):
        batch.append(row)
        characters += len(row.content)
        if len(batch) >= _BATCH_ROWS or characters > _BATCH_CHARACTERS:
            _send(out, "rows", [position.share(), batch])
            batch, characters = [], 0
    if batch:
        _send(out, "rows", [1.0, batch])


def _send_row(out: BinaryIO, finished: Finished) -> None:
    row, content, reason, remarks, _, file = finished
    _send(out, "row", [row.id, row.name, row.place, row.labels, reason, remarks, file], content)


def _send(out: BinaryIO, kind: str, value: Any, content: Content | None = None) -> None:
    head = json.dumps([kind, value], separators=(",", ":")).encode()
    body = b"" if content is None else content.to_bytes()
    out.write(LENGTHS.pack(len(head), len(body)) + head + body)
    out.flush()


def receive(data: bytearray) -> Iterator[Message]:
    """Yields the messages that are complete, and removes them."""
    start = 0
    while len(data) - start >= LENGTHS.size:
        head, body = LENGTHS.unpack_from(data, start)
        middle = start + LENGTHS.size + head
        if len(data) < middle + body:
            break
        kind, value = json.loads(data[start + LENGTHS.size : middle])
        found = np.frombuffer(bytes(data[middle : middle + body]), np.uint8)
        content = Content.from_bytes(found) if body else None
        start = middle + body
        yield Message(kind, value, content)
    del data[:start]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BrokenPipeError:  # whoever started it is gone
        os._exit(1)
