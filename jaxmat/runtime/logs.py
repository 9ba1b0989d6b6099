"""What is said while something runs: kept in a file, and what is said again left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxmat.runtime import hosts
from jaxmat.runtime.files import reason, shown_lines

_FORMAT = "%(asctime)s %(message)s"


class Harmless(logging.Formatter):
    """Writes control characters out, which names and ids of others may hold."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text of a record, in several lines perhaps."""
        return shown_lines(super().format(record))


class SaidOnce(logging.Filter):
    """Lets each warning through once: a table that is read for ten folds is odd ten times."""

    def __init__(self) -> None:
        """Makes a filter that has let nothing through yet."""
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is new, or no warning."""
        message = record.getMessage()
        if record.levelno != logging.WARNING or message not in self._said:
            self._said.add(message if record.levelno == logging.WARNING else "")
            return True
        return False


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Keeps what jaxmat says while the context lasts, after what the file has already.

    Of several processes that are one program the first alone writes. A file that cannot be
    written is passed over with a warning: what it would hold is said on the terminal, too.
    """
    logger = logging.getLogger("jaxmat")
    if not hosts.is_first():
        yield
        return
    try:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        what = "%s cannot be written (%s): what is said now is not kept"
        logger.warning(what, file, reason(error))
        yield
        return
    handler.setFormatter(Harmless(_FORMAT))
    handler.addFilter(SaidOnce())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
