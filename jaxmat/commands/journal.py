"""An output that is written as it comes, and gone on with where it was stopped.

Until it is complete it has another name: .NAME.KEY.partial beside it, where KEY tells what it is
made with. Beside that is a file of what has to be known to go on.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from jaxmat.errors import UserError, counted
from jaxmat.report.rows import Value, formatted, unformatted
from jaxmat.runtime.files import beside, read_json, write_json

_logger = logging.getLogger(__name__)


class Journal:
    """The rows that are written so far.

    Attributes:
        path: of the file while it is not complete.
        state: JSON values, what the last `write` was given.
        rows: how many are written.
    """

    def __init__(self, path: Path, header: Sequence[str], resume: bool) -> None:
        """Begins anew, or keeps the rows of the last complete write.

        Raises:
            UserError: another process writes it.
        """
        self.path, self._about = path, path.with_name(path.name + ".json")
        self.state: Any = None
        self.rows = 0
        self._digest = hashlib.blake2b()
        self._stream: IO[bytes] = path.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise UserError(f"{path} is being written by another process; wait for it.") from error
        if self._about.exists() and not resume:
            _logger.warning("%s is begun anew: --resume would have gone on with its rows", path)
        if not (resume and self._about.exists() and self._goes_on()):
            self._about.unlink(missing_ok=True)
            self._stream.truncate(0)
            self._append([header])

    def _goes_on(self) -> bool:
        """Takes up what is there; returns whether it is what was written."""
        try:
            about = read_json(self._about)
            digest = _digest_of(self._stream, about["bytes"])
            intact = about["digest"] == _checksum(digest.copy(), about)
        except (UserError, KeyError, TypeError):
            intact = False
        if not intact:
            _logger.warning("%s is damaged: it is begun anew", self.path)
            return False
        self.state, self.rows, self._digest = about["state"], about["rows"], digest
        self._stream.truncate(about["bytes"])
        return True

    def written(self) -> Iterator[dict[str, str]]:
        """Yields the rows that are there."""
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in islice(csv.DictReader(stream), self.rows):
                yield {name: unformatted(cell) for name, cell in row.items()}

    def write(self, rows: Sequence[Sequence[Value]], state: object) -> None:
        """Adds rows, which are on the disk when it returns."""
        self._append(rows)
        self.rows += len(rows)
        size = os.fstat(self._stream.fileno()).st_size
        about = {"rows": self.rows, "bytes": size, "state": state}
        write_json(self._about, about | {"digest": _checksum(self._digest.copy(), about)})

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def discard(self) -> None:
        """Lets nothing be kept where this ends with an exception."""
        self.rows = 0

    def remove(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _append(self, rows: Iterable[Sequence[Value]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(formatted(row) for row in rows)
        data = text.getvalue().encode("utf-8", "surrogateescape")
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._digest.update(data)


def _digest_of(stream: IO[bytes], size: int) -> Any:
    """Returns the digest of the first so many bytes."""
    digest = hashlib.blake2b()
    stream.seek(0)
    while size > 0 and (block := stream.read(min(size, 2**20))):
        digest.update(block)
        size -= len(block)
    return digest


def _checksum(digest: Any, about: dict[str, Any]) -> str:
    """Returns the digest of what is written and of what is to be known to go on."""
    digest.update(json.dumps([about["rows"], about["bytes"], about["state"]]).encode())
    return str(digest.hexdigest())


@contextmanager
def journal(output: Path, header: Sequence[str], key: str, resume: bool) -> Iterator[Journal]:
    """Gives a journal, which becomes the output when the context ends.

    Where it ends with an exception, what is written is kept for the next time, if there is any.

    Args:
        output: the file in the end.
        header: names of its columns.
        key: of what it is made with, hexadecimal: another key begins anew.
        resume: go on with what is there.

    Raises:
        UserError: another process writes the same.
    """
    target = Path(os.path.realpath(output))
    path = target.with_name(beside(".", target.name, f".{key}.partial"))
    book = Journal(path, header, resume)
    if not resume:
        _remove_older(path, key)
    elif not book.rows:
        _logger.info("There is nothing to go on with: all is done from the first input on.")
    try:
        yield book
        path.replace(target)
        book.close()
        book.remove()
    except BaseException as error:
        book.close()
        if book.rows and isinstance(error, UserError):  # which tells what to do itself
            _logger.warning("Kept: %s", counted(book.rows, "row"))
        elif book.rows:
            error.add_note(
                f"Kept: {counted(book.rows, 'row')}. The same command with --resume goes on."
            )
        else:
            book.remove()
        raise


def _remove_older(present: Path, key: str) -> None:
    """Removes what has been written of the same output with other keys."""
    begin, _, end = map(re.escape, present.name.rpartition(key))
    other = re.compile(rf"{begin}[0-9a-f]+{end}(\.json)?")
    for file in present.parent.iterdir():
        if other.fullmatch(file.name) and not file.name.startswith(present.name):
            file.unlink(missing_ok=True)
