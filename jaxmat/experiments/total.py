"""How far a list of trainings is: "training 7 of 42, about 12 min left"."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxmat.runtime.durations import in_words

_logger = logging.getLogger(__name__)


class Total:
    """Counts trainings, and estimates the time that is left from those that were done."""

    def __init__(self, work: Mapping[str, float]):
        """Starts before the first training.

        Args:
            work: name of each training to do → its work in any unit, such as steps times batch
                size.
        """
        self._left, self._of = dict(work), len(work)
        self._seconds = self._work = 0.0

    @contextmanager
    def training(self, names: Collection[str]) -> Iterator[list[Mapping[str, Any]]]:
        """Says which trainings come now, and times them; those that fail count as done.

        Args:
            names: of the trainings, which are one program.

        Yields:
            A list for their results, whose "compiling_seconds" do not come again.
        """
        first = self._of - len(self._left) + 1
        last = first + len(names) - 1
        numbers = f"training {first}" if first == last else f"trainings {first} to {last}"
        left = self.seconds_left()
        estimate = "" if left is None else f", about {in_words(left)} left"
        _logger.info("%s of %d%s: %s", numbers, self._of, estimate, ", ".join(names))
        began, results = time.monotonic(), list[Mapping[str, Any]]()
        try:
            yield results
        finally:
            work = self.leave_out(names)
        if results:
            compiling = sum(result.get("compiling_seconds", 0.0) for result in results)
            self._seconds += max(time.monotonic() - began - compiling, 0.0)
            self._work += work

    def leave_out(self, names: Collection[str]) -> float:
        """Counts trainings as done that took no time here; returns their work."""
        return sum(self._left.pop(name, 0.0) for name in names)

    def seconds_left(self) -> float | None:
        """Returns an estimate, None before the end of the first training."""
        return self._seconds / self._work * sum(self._left.values()) if self._work else None
