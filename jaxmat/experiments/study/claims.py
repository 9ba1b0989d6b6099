"""Claims that keep processes which share a directory from doing the same work at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jaxmat.errors import UserError
from jaxmat.runtime.files import reason
from jaxmat.runtime.stopping import giving_up_at_once


@contextmanager
def claimed(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a claim while the context lasts, or until the process ends, however it ends.

    Args:
        file: what is claimed; it is made and stays.
        wait: whether to wait until no other process has it.

    Yields:
        Whether the claim was granted.

    Raises:
        UserError: the file cannot be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write to {file.parent}: {reason(error)}") from error
    with opened as stream:
        yield _granted(stream, wait)


def _granted(stream: IO[str], wait: bool) -> bool:
    try:
        with giving_up_at_once():
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, of which the lock of each run warns
    return True
