"""An output that is written as it comes, and gone on with where it was stopped.

Until it is complete it has another name: .NAME.KEY.partial beside it, where KEY tells what it is
made with. Beside that is a file of what has to be known to go on.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from jaxmat.report.rows import Value, formatted, unformatted
from jaxmat.runtime.files import write_json

_logger = logging.getLogger(__name__)


class Journal:
    """The rows that are written so far.

    Attributes:
        path: of the file while it is not complete.
        state: what the last `write` was given.
        rows: how many are written.
    """

    def __init__(self, path: Path, header: Sequence[str], resume: bool) -> None:
        """Begins anew, or keeps the rows of the last complete write."""
        self.path, self._about = path, path.with_name(path.name + ".json")
        self.state: Any = None
        self.rows = 0
        if resume and path.is_file() and self._about.is_file():
            about = json.loads(self._about.read_text(encoding="utf-8"))
            self.state, self.rows = about["state"], about["rows"]
            self._stream: IO[bytes] = path.open("r+b")
            self._stream.truncate(about["bytes"])
            self._stream.seek(about["bytes"])
        else:
            self._about.unlink(missing_ok=True)
            self._stream = path.open("wb")
            self._append([header])

    def written(self) -> Iterator[dict[str, str]]:
        """Yields the rows that are there."""
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in islice(csv.DictReader(stream), self.rows):
                yield {name: unformatted(cell) for name, cell in row.items()}

    def write(self, rows: Sequence[Sequence[Value]], state: object) -> None:
        """Adds rows, which are on the disk when it returns."""
        self._append(rows)
        self.rows += len(rows)
        about = {"rows": self.rows, "bytes": self._stream.tell(), "state": state}
        write_json(self._about, about)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def remove(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _append(self, rows: Iterable[Sequence[Value]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(formatted(row) for row in rows)
        self._stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextmanager
def journal(output: Path, header: Sequence[str], key: str, resume: bool) -> Iterator[Journal]:
    """Gives a journal, which becomes the output when the context ends.

    Where it ends with an exception, what is written is kept for the next time, if there is any.

    Args:
        output: the file in the end.
        header: names of its columns.
        key: of what it is made with: another key begins anew.
        resume: go on with what is there.
    """
    target = Path(os.path.realpath(output))
    path = target.with_name(f".{target.name}.{key}.partial"[-200:])
    if not resume:
        for old in target.parent.glob(f".{target.name}.*.partial*"):
            old.unlink(missing_ok=True)
    book = Journal(path, header, resume)
    try:
        yield book
        book.close()
        path.replace(target)
        book.remove()
    except BaseException:
        book.close()
        if book.rows:
            _logger.warning("%d rows are kept: the same command with --resume goes on", book.rows)
        else:
            book.remove()
        raise
