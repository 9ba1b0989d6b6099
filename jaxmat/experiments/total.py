"""How far a list of trainings is: "training 7 of 42, about 12 min left"."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from jaxmat.runtime.compiling import CompileClock
from jaxmat.runtime.durations import in_words, kept

_logger = logging.getLogger(__name__)

Result = dict[str, Any]

_FIRM = 0.7  # an estimate is firm where so much of it is of trainings whose kind was measured


class Work(NamedTuple):
    """How much a training is to do.

    Attributes:
        amount: in any unit, such as steps times batch size.
        kind: of the trainings that take as long for the same amount, such as those on one table.
    """

    amount: float
    kind: Hashable = None


class _Estimate(NamedTuple):
    """Seconds to the end, and those spent on trainings when it was made."""

    seconds: float
    spent: float


class Total:
    """Counts trainings, and estimates the time that is left from those that were done."""

    def __init__(
        self,
        work: Mapping[str, Work],
        add: Callable[[Mapping[str, float]], float] = lambda seconds: sum(seconds.values()),
    ) -> None:
        """Starts before the first training.

        Args:
            work: name of each training to do → its work.
            add: from the seconds of each training that is left to those of all, which may be
                fewer where there is a limit.
        """
        self._left, self._of, self._add = dict(work), len(work), add
        self._chance: dict[str, float] = {}
        self._seconds: dict[Hashable, float] = defaultdict(float)  # of finished work, by kind
        self._amount: dict[Hashable, float] = defaultdict(float)
        self._spent = 0.0  # on all trainings, without compiling
        self._estimate: _Estimate | None = None  # the first that was firm

    @contextmanager
    def training(self, names: Collection[str]) -> Iterator[list[Result]]:
        """Says which trainings come now, and times them; those that fail count as done.

        Args:
            names: of the trainings, which are one program.

        Yields:
            A list for their results; where it stays empty they were stopped.
        """
        first = self._of - len(self._left) + 1
        last = first + len(names) - 1
        numbers = f"training {first}" if first == last else f"trainings {first} to {last}"
        estimate = self._in_words()
        _logger.info("%s of %d%s: %s", numbers, self._of, estimate, ", ".join(names))
        began, results = time.monotonic(), list[Result]()
        with closing(CompileClock()) as compiled:
            try:
                yield results
            finally:
                seconds = max(time.monotonic() - began - compiled(), 0.0)
                work = [self._left[name] for name in names if name in self._left]
                self.leave_out(names)
        self._spent += seconds
        if results and work:
            self.measure(Work(sum(one.amount for one in work), work[0].kind), seconds)
        if results and self._estimate and not self._left:
            took = self._spent - self._estimate.spent
            _logger.info("%d trainings: %s", self._of, kept(self._estimate.seconds, took))

    def run(self, name: str, train: Callable[[], Result | None]) -> Result | None:
        """Returns what a training returns, None where it was stopped.

        Args:
            name: of the training; one that is not in the list is done, and only read.
            train: trains or reads.
        """
        if name not in self._left:
            return train()
        with self.training([name]) as finished:
            result = train()
            finished += [] if result is None else [result]
        return result

    def measure(self, work: Work, seconds: float) -> None:
        """Takes in how long some work took."""
        self._amount[work.kind] += work.amount
        self._seconds[work.kind] += seconds

    def leave_out(self, names: Collection[str]) -> None:
        """Counts trainings as done that took no time here."""
        for name in names:
            self._left.pop(name, None)

    def expect(self, names: Collection[str], chance: float) -> None:
        """Takes in how likely it is that trainings are needed."""
        self._chance |= dict.fromkeys(names, chance)

    def seconds_left(self) -> float | None:
        """Returns an estimate, None before the end of the first training."""
        return self._look_ahead()[0]

    def _look_ahead(self) -> tuple[float | None, bool]:
        """Returns an estimate, and whether it is firm."""
        if not sum(self._amount.values()):
            return None, False
        mean = sum(self._seconds.values()) / sum(self._amount.values())
        seconds, known = {}, 0.0
        for name, (amount, kind) in self._left.items():
            measured = self._amount.get(kind)
            rate = self._seconds[kind] / measured if measured else mean
            seconds[name] = amount * self._chance.get(name, 1.0) * rate
            known += seconds[name] if measured else 0.0
        return self._add(seconds), known >= _FIRM * sum(seconds.values())

    def _in_words(self) -> str:
        """Returns the estimate as it is said, and keeps the first that is firm."""
        seconds, firm = self._look_ahead()
        if seconds is None:
            return ""
        if firm and self._estimate is None:
            self._estimate = _Estimate(seconds, self._spent)
        return f", {'about' if firm else 'perhaps'} {in_words(seconds)} left"
