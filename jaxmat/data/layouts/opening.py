"""Files from outside are opened: only regular ones, unpacked within limits, in any encoding.

Packed are those that pandas writes: gzip, bzip2, xz, and zip with one file in it.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from jaxmat.data.layouts.foreign import refuse_foreign
from jaxmat.errors import UserError

# Tables of structures shrink 4 to 15 times; a file that expands far more is a trap.
MAX_RATIO = 100
FREE_BYTES = 64 * 2**20
_ZIP = b"PK\x03\x04"
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
# What unpacking raises where a file is broken.
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_HEAD = 2**16  # bytes that tell the encoding
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_DAMAGED = "it cannot be unpacked: it is damaged or cut short; copy it again"


class _Expanding(io.RawIOBase):
    """What is unpacked from a file; more than its size allows is refused."""

    def __init__(self, stream: BinaryIO, packed: int) -> None:
        super().__init__()
        self._stream, self._packed, self._left = stream, packed, FREE_BYTES + MAX_RATIO * packed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(min(len(buffer), 2**20))
        except (*_BROKEN, RuntimeError) as reason:
            raise UserError(_DAMAGED) from reason
        self._left -= len(data)
        if self._left < 0:
            limit = FREE_BYTES + MAX_RATIO * self._packed
            raise UserError(
                f"{self._packed} bytes expand to more than {limit}, too many for crystals; unpack "
                "it yourself if you trust it"
            )
        buffer[: len(data)] = data
        return len(data)


class Position:
    """How far a file has been read."""

    def __init__(self) -> None:
        """Of no file yet."""
        self._file: BinaryIO | None = None
        self._size = 1

    def follow(self, file: BinaryIO, size: int) -> None:
        """Tells of a file of `size` bytes from now on."""
        self._file, self._size = file, max(size, 1)

    def share(self) -> float:
        """Returns the share of the file that has been read, 0 to 1."""
        if self._file is None or self._file.closed:
            return 1.0
        return min(self._file.tell() / self._size, 1.0)


@contextmanager
def open_bytes(path: Path, position: Position | None = None) -> Iterator[io.BufferedReader]:
    """Opens a regular file for reading; packed ones are unpacked.

    Args:
        path: of the file.
        position: is told of the file.

    Raises:
        UserError: no regular file, not readable, or it cannot be unpacked.
    """
    try:
        # Without blocking: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as reason:
        text = reason.strerror if isinstance(reason, OSError) else "there is no such name"
        raise UserError(f"cannot be opened ({text})") from reason
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError("it is not a regular file")
        if position is not None:
            position.follow(file, status.st_size)
        start = file.peek(8)[:8]
        unpacked = next((one for mark, one in _PACKED.items() if start.startswith(mark)), None)
        if unpacked is not None:
            yield io.BufferedReader(
                _Expanding(cast(BinaryIO, unpacked(file)), status.st_size), 2**16
            )
        elif start.startswith(_ZIP):
            with _open_member(file) as member:
                yield io.BufferedReader(_Expanding(member, status.st_size), 2**16)
        else:
            yield file


@contextmanager
def _open_member(file: BinaryIO) -> Iterator[BinaryIO]:
    """Opens the only file in a zip archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [one for one in archive.infolist() if not one.is_dir()]
            names = [one for one in names if not one.filename.startswith("__MACOSX/")]
            if any(one.filename == "xl/workbook.xml" for one in names):
                raise UserError("it is an Excel workbook: save it as CSV")
            if len(names) != 1:
                raise UserError(f"the archive holds {len(names)} files, not one: unpack it")
            with archive.open(names[0]) as member:
                yield cast(BinaryIO, member)
    except RuntimeError as reason:  # also of NotImplementedError
        raise UserError("it cannot be unpacked: its method is not known, or encrypted") from reason
    except (zipfile.BadZipFile, OSError) as reason:
        raise UserError(_DAMAGED) from reason


def find_encoding(head: bytes) -> str:
    """Returns the encoding of a text that begins so; where it is not UTF, cp1252.

    Raises:
        UserError: it is not text.
    """
    for mark, name in _BOMS.items():
        if head.startswith(mark):
            return name
    if len(head) >= 4 and 0 in head[:4]:
        if not head[0] and head[1] and not head[2]:
            return "utf-16-be"
        if head[0] and not head[1] and head[2] and not head[3]:
            return "utf-16-le"
    refuse_foreign(head)
    if b"\0" in head:
        raise UserError("it is not text: it holds NUL bytes")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def open_text(stream: io.BufferedReader) -> io.TextIOWrapper:
    """Returns the text of a stream; bytes that do not fit its encoding are replaced."""
    encoding = find_encoding(stream.peek(_HEAD)[:_HEAD])
    return io.TextIOWrapper(stream, encoding, errors="replace", newline="")
