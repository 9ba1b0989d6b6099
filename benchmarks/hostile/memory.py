"""Time and memory of a trial, those of the processes that it starts among them."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_SECONDS_BETWEEN_LOOKS = 0.01


def processor_seconds() -> float:
    """Returns the processor time of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class PeakMemory:
    """The most memory in use at once while it is entered, on top of what was in use before.

    On Linux a thread looks at the processes below this one all the time: what each has ever used is
    counted for as long as it lives. Elsewhere this process alone is seen.

    Attributes:
        megabytes: found so far.
    """

    def __init__(self) -> None:
        """Looks at nothing yet."""
        self.megabytes = 0.0
        self._below = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Begins to look."""
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _peak("self")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        self._over.set()
        self._thread.join()
        self.megabytes = max(0.0, _peak("self") - self._before) + self._below

    def _look(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            self._below = max(self._below, sum(map(_peak, _below("self"))))


def _below(process: str) -> Iterator[str]:
    """Yields the ids of the processes that a process has started, and of those they have."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield child
                yield from _below(child)


def _peak(process: str) -> float:
    """Returns the most memory that a process has used, 0 for one that has ended, megabytes."""
    if sys.platform != "linux":
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 2**20 if process == "self" else 0.0
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if "VmHWM" in line)) / 1e3
    return 0.0
