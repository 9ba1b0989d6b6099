"""The rows of a table as they were read: kept on disk where reading took its time.

What is kept of a table, and of what was asked for of it, is a folder named by a hash of both and of
the versions of the packages that read, with
    about.json    what was read and by which code; once all is read, digests of the other files;
    rows.jsonl    a line for each row, see `_Row`;
    crystals.bin  the crystals, one after another (`jaxmat.data.contents`);
    keys.bin      once all is read, the key of each of them.
Rows and crystals only grow, so that reading goes on where it was stopped; one process at a time
writes. Where the table, a file that it names, or the code that reads is another, all is read again.
What has not been used for long is removed; that its table is not there says nothing, for that may
lie on a drive or in another environment.
Linux and macOS only (file locks).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

import jaxmat
from jaxmat.crystals.content import content_bytes
from jaxmat.data.contents import Contents
from jaxmat.data.layouts.delimited import find_file
from jaxmat.data.layouts.rows import FileStamp, Wanted, file_stamp
from jaxmat.data.reading import Reading, find_table, read
from jaxmat.data.reading_pool import Limits
from jaxmat.errors import UserError
from jaxmat.runtime.bars import progress_bar
from jaxmat.runtime.durations import in_words
from jaxmat.runtime.files import digest_file, read_json, reason, write_json

_ABOUT, _ROWS, _CRYSTALS = "about.json", "rows.jsonl", "crystals.bin"
_KEYS, _LOCK = "keys.bin", "lock"
# Seconds of reading after which what was read is written; a table read sooner is not kept.
_SECONDS = 0.3
# Rows that are written together.
_BATCH = 500
_SECONDS_BETWEEN_LOG_LINES = 30.0
# Since it was used, after which what is kept is removed.
_MOST_DAYS = 90.0
_PACKAGES = ("ase", "gemmi", "numpy", "pymatgen", "pymatgen-core")

_logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    """A row as a line of JSON; see `jaxmat.data.reading.Reading`.

    Attributes:
        sites: of its crystal, 0 where there is none.
        check: a checksum of the bytes of the crystal.
    """

    id: str
    name: str
    place: str
    labels: dict[str, Any]
    reason: str
    remarks: list[str]
    file: FileStamp | None
    sites: int
    check: int


class Rows:
    """All rows of a table.

    Attributes:
        ids, names, places, reasons, remarks: of the rows, see `jaxmat.data.reading.Reading`.
        cells: the other cells by column, None where a row has none.
        sites: of each crystal, 0 where there is none.
        files: that rows name.
    """

    def __init__(self) -> None:
        """None yet."""
        self.ids: list[str] = []
        self.names: list[str] = []
        self.places: list[str] = []
        self.reasons: list[str] = []
        self.remarks: list[list[str]] = []
        self.cells: dict[str, list[Any]] = {}
        self.sites: list[int] = []
        self.files: list[FileStamp] = []

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows, of which each is a `_Row` or what JSON makes of one."""
        if not rows:
            return
        ids, names, places, labels, reasons, remarks, files, sites, _ = zip(*rows, strict=True)
        before = len(self.ids)
        self.ids += ids
        # Of equal texts and lists one is kept.
        self.names += (id if id == name else name for id, name in zip(ids, names, strict=True))
        self.places += places
        self.reasons += (reason or "" for reason in reasons)
        self.remarks += (some or _NO_REMARKS for some in remarks)
        self.sites += sites
        self.files += (file for file in files if file is not None)
        for column in dict.fromkeys(name for cells in labels for name in cells):
            known = self.cells.setdefault(column, [None] * before)
            known += [None] * (before - len(known))
            known += (cells.get(column) for cells in labels)

    def end(self) -> Rows:
        """Fills the columns that the last rows lack; returns itself."""
        for column in self.cells.values():
            column += [None] * (len(self.ids) - len(column))
        return self


_NO_REMARKS: list[str] = []

Found = tuple[Rows, Contents]


def kept_rows(
    path: str, wanted: Wanted, limits: Limits, workers: int | None, folder: Path
) -> Found:
    """Returns the rows of a table and their crystals, mapped from the disk where they are kept.

    Stopped at any moment, this goes on where it was when called again. Where the folder cannot be
    written, there is a warning, and the table is read into memory.

    Args:
        path: of the table, see `jaxmat.data.reading.read`.
        wanted: what is asked for, from the first row on.
        limits: of reading one structure.
        workers: processes that read; None: one for each core.
        folder: of all tables that are kept.

    Raises:
        UserError: it is not a table, or cannot be read to its end.
    """

    def read_on(start: int) -> Iterator[Reading]:
        rows = read(path, wanted._replace(start=start), limits, workers)
        return _watched(_checked(rows, path), path, start)

    about = _describe(path, wanted, limits)
    if about["digest"] is None:  # no file that a later one could be held against
        return _in_memory(read_on(0))
    # Two environments keep what each of them has read, and none of it is the other's.
    name = json.dumps([about["asked"], _versions()]).encode()
    place = folder / hashlib.sha256(name).hexdigest()[:16]
    first: list[Reading] = []
    rest: Iterator[Reading] = iter(())
    try:
        if not place.exists():
            rest = read_on(0)
            first = list(_for_seconds(rest))
            if (more := next(rest, None)) is None:
                return _in_memory(first)
            first.append(more)
        with _locked(place):
            return _on_disk(place, about, read_on, first, rest)
    except OSError as error:
        _logger.warning("What is read of %s cannot be kept in %s: %s", path, folder, reason(error))
    return _in_memory(read_on(0))


def _describe(path: str, wanted: Wanted, limits: Limits) -> dict[str, Any]:
    """Returns what has to be the same for what was read to hold.

    Raises:
        UserError: there is no bundled table of this name.
    """
    file = find_table(path)
    full = file and os.path.abspath(file)
    labels = None if wanted.labels is None else list(wanted.labels)
    # A row that passes a limit has no crystal; under another limit it may have one.
    asked = [path, full, wanted.id_column, labels, limits.seconds, limits.megabytes]
    return {"table": full, "asked": asked, "digest": digest_file(full), "readers": _readers()}


@functools.cache
def _readers() -> str:
    """Returns a digest of the code that has a say in what a file is read as."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(jaxmat.__file__).parent
    files = [*(package / "crystals").rglob("*.py"), *(package / "data").rglob("*.py")]
    # Which decides what a number is.
    for file in sorted([*files, package / "values.py"]):
        digest.update(file.read_bytes())
    digest.update(json.dumps(_versions()).encode())
    return digest.hexdigest()


def _versions() -> list[str]:
    """Returns the versions of the packages that read, "" of one that is not installed."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("")
    return found


def _checked(rows: Iterable[Reading], path: str) -> Iterator[Reading]:
    for row in rows:
        if row.reason and not row.place:
            raise UserError(f"{path}: {row.reason.removeprefix('unreadable: ')}")
        yield row


def _watched(rows: Iterable[Reading], path: str, start: int) -> Iterator[Reading]:
    """Yields rows; a bar moves on a terminal, elsewhere a log line comes now and then."""
    began = said = shown = time.monotonic()
    before: float | None = None  # share of the table that is passed over
    with progress_bar(100, desc="reading", unit="%", smoothing=0, delay=1) as bar:
        for number, row in enumerate(rows, start=start + 1):
            yield row
            before = row.share if before is None else before
            now = time.monotonic()
            if now - shown > 0.2:
                bar.update(100 * row.share - bar.n)
                bar.set_postfix_str(f"{number} rows")
                shown = now
            if bar.disable and now - said > _SECONDS_BETWEEN_LOG_LINES and row.share > before:
                left = in_words((now - began) * (1 - row.share) / (row.share - before))
                _logger.info("%s: %d rows read, %s left", path, number, left)
                said = now


def _for_seconds(rows: Iterator[Reading]) -> Iterator[Reading]:
    began = time.monotonic()
    for row in rows:
        yield row
        if time.monotonic() - began > _SECONDS:
            return


def _in_memory(readings: Iterable[Reading]) -> Found:
    found, crystals = Rows(), bytearray()
    readings = iter(readings)
    while some := list(islice(readings, _BATCH)):
        rows, data = zip(*map(_encode, some), strict=True)
        found.add(rows)
        crystals += b"".join(data)
    sites = np.array(found.end().sites, np.int64)
    return found, Contents.consecutive(np.frombuffer(crystals, np.uint8), sites)


def _encode(reading: Reading) -> tuple[_Row, bytes]:
    content = reading.content
    crystal = b"" if content is None else content.to_bytes()
    about = (reading.id, reading.name, reading.place, reading.labels, reading.reason)
    sites = 0 if content is None else len(content.atomic_number)
    return _Row(*about, reading.remarks, reading.file, sites, zlib.crc32(crystal)), crystal


def _on_disk(
    place: Path,
    about: dict[str, Any],
    read_on: Callable[[int], Iterator[Reading]],
    first: Sequence[Reading],
    rest: Iterator[Reading],
) -> Found:
    """Returns the rows that are kept in a place; those that are missing are read and added.

    Args:
        place: which is locked.
        about: from `_describe`.
        read_on: reads the rows from one of them on.
        first: rows that have been read already, from the first one on.
        rest: those after them.

    Raises:
        OSError: it cannot be written.
        UserError: see `kept_rows`.
    """
    kept = _read_about(place, about)
    if kept is not None and "complete" in kept:
        if (found := _load(place, kept["complete"])) is not None:
            return found
        kept = None
    if kept is None:
        _remove_unused(place)
        for name in (_ROWS, _CRYSTALS):
            # Others may still read the old ones.
            (place / name).unlink(missing_ok=True)
        write_json(place / _ABOUT, about)
        _append(place, first)
        start = len(first)
    else:
        start = _cut(place)
        _logger.info("%s: reading goes on after %d rows", about["table"], start)
    _append(place, rest if first and start == len(first) else read_on(start))
    changed = f"{about['table']} has changed while it was read; start again."
    if digest_file(about["table"]) != about["digest"]:
        (place / _ABOUT).unlink()  # what was read is of neither
        raise UserError(changed)
    sites = np.array([row.sites for _, row in _lines(place)], np.int64)
    contents = Contents.consecutive(_mapped(place / _CRYSTALS), sites)
    (place / _KEYS).write_bytes(contents.keys().tobytes())
    complete = {name: digest_file(place / name) for name in (_ROWS, _CRYSTALS, _KEYS)}
    write_json(place / _ABOUT, about | {"complete": complete})
    if (found := _load(place, complete)) is None:
        raise UserError(changed)
    return found


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Waits until no other process is at a place, and keeps others from it."""
    place.mkdir(parents=True, exist_ok=True)
    with _open_lock(place / _LOCK) as lock:  # free when it is closed, be it by a kill
        kind = fcntl.LOCK_EX if lock.writable() else fcntl.LOCK_SH
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.info("Another process reads the table; waiting for it (%s)", place)
            fcntl.flock(lock, kind)
        if lock.writable():
            os.utime(place / _LOCK)  # when it was used last
        yield


def _open_lock(file: Path) -> TextIO:
    """Returns the file that is locked; what others keep may be read where it cannot be written."""
    try:
        return file.open("w")
    except OSError:
        return file.open()


def _read_about(place: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what is said of a place, None where that is something else than it has to be."""
    try:
        kept = read_json(place / _ABOUT)
    except UserError:
        return None
    return kept if about.items() <= kept.items() else None


def _append(place: Path, readings: Iterable[Reading]) -> None:
    readings = iter(readings)
    with (place / _ROWS).open("ab") as rows, (place / _CRYSTALS).open("ab") as crystals:
        while some := list(_for_seconds(islice(readings, _BATCH))):
            lines, data = zip(*map(_encode, some), strict=True)
            crystals.write(b"".join(data))
            crystals.flush()
            rows.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            rows.flush()


def _lines(place: Path) -> Iterator[tuple[bytes, _Row]]:
    """Yields the lines that are whole and what they say."""
    with suppress(FileNotFoundError), (place / _ROWS).open("rb") as rows:
        for line in rows:
            try:
                yield line, _Row(*json.loads(line))
            except (ValueError, TypeError):
                return  # a kill or a power failure came in between


def _cut(place: Path) -> int:
    """Cuts off what is behind the last sound row; returns how many there are."""
    count = length = end = 0
    with (place / _CRYSTALS).open("a+b") as crystals:
        crystals.seek(0)
        for line, row in _lines(place):
            size = content_bytes(row.sites)
            sound = zlib.crc32(crystals.read(size)) == row.check and line.endswith(b"\n")
            if not sound or not _is_same(row.file):
                break
            count, length, end = count + 1, length + len(line), end + size
        crystals.truncate(end)
    with (place / _ROWS).open("ab") as rows:
        rows.truncate(length)
    return count


def _load(place: Path, complete: dict[str, Any]) -> Found | None:
    """Returns what is kept, None where it is not what was written or not what is there now."""
    if any(digest_file(place / name) != digest for name, digest in complete.items()):
        _logger.warning("What is kept of a table in %s is damaged: it is read again", place)
        return None
    found = Rows()
    with (place / _ROWS).open("rb") as lines:
        while some := list(islice(lines, _BATCH)):
            found.add(json.loads(b"[" + b",".join(some) + b"]"))
    if not all(map(_is_same, found.files)):
        return None
    sites = np.array(found.end().sites, np.int64)
    keys = np.fromfile(place / _KEYS, "S16")
    return found, Contents.consecutive(_mapped(place / _CRYSTALS), sites, keys)


def _mapped(file: Path) -> np.ndarray:
    """Returns the bytes of a file, mapped; an empty one cannot be."""
    if not file.stat().st_size:
        return np.empty(0, np.uint8)
    return np.asarray(np.memmap(file, np.uint8, "r"))


def _is_same(file: Sequence[Any] | None) -> bool:
    """Whether a file is what it was, or still not there."""
    if file is None:
        return True
    path, size, _ = file
    if size < 0:
        return find_file(*os.path.split(path)) is None
    return file_stamp(path) == tuple(file)


def _remove_unused(place: Path) -> None:
    """Removes what is kept beside a place and was not used for long."""
    oldest = time.time() - _MOST_DAYS * 86_400
    for lock in place.parent.glob(f"*/{_LOCK}"):
        if lock.parent == place:
            continue
        with suppress(OSError):
            if lock.stat().st_mtime < oldest:
                with lock.open("a") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent)
