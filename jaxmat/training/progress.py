"""A word on how far a run is and how long it will take: a bar on a terminal, elsewhere log lines.

Steps are timed, and compiling, evaluating and saving apart from them, so that one that takes long
and comes once does not enter an estimate as if it came again at each step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from jaxmat.runtime import hosts
from jaxmat.runtime.bars import progress_bar
from jaxmat.runtime.durations import in_words, kept

_logger = logging.getLogger(__name__)

_FIRST_STEPS = 4  # measured before the first estimate
# s; evaluations that come so soon are measured, too, before the first estimate: the second as well,
# as the first sets up checkpoints and more.
_SOON, _FIRST_RECORDS = 10.0, 2
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]"


class _Estimate(NamedTuple):
    """The first estimate: seconds to the end, the time it was made, compiling until then."""

    seconds: float
    at: float
    compiled: float


class Progress:
    """A bar on a terminal, elsewhere a log line every half minute.

    Of several processes that are one program the first alone speaks.
    """

    def __init__(
        self,
        step: int,
        total_steps: int,
        *,
        record_every: int,
        save_every: int,
        record_work: float,
        compiled: Callable[[], float],
    ):
        """Starts the clock.

        Args:
            step: the step that the run starts from.
            total_steps: its last step.
            record_every: steps between evaluations.
            save_every: steps between savings.
            record_work: work of an evaluation relative to that of a mean step, a guess that
                serves until it is measured.
            compiled: tells the seconds that compiling has taken so far.
        """
        self._bar = progress_bar(
            total_steps, silent=not hosts.is_first(), initial=step, bar_format=_BAR
        )
        self._every = 30.0 if self._bar.disable else 1.0
        self._step, self._total_steps = step, total_steps
        self._record_every, self._save_every = record_every, save_every
        self._record_work, self._compiled = record_work, compiled
        self._records: list[float] = []  # durations, without compiling
        self._saves: list[float] = []
        # Of all steps that were timed, and of those since.
        self._seconds = self._work = self._new_work = 0.0
        self._new_steps = 0
        self._estimate: _Estimate | None = None
        self._waits = False  # with it for the next evaluation
        self._steps = 0
        self._crystals: list[float] = []  # of each step since something was shown
        self._mark = self._shown_at = time.monotonic()

    def count(self, work: float) -> None:
        """Counts a step that was started and need not be compiled.

        Args:
            work: relative to that of a mean step of the run.
        """
        self._new_work += work
        self._new_steps += 1

    def is_due(self) -> bool:
        """Whether it is time to say something."""
        if not hosts.is_first():
            return False
        first = self._estimate is None and not self._waits and self._new_steps >= _FIRST_STEPS
        return first or time.monotonic() - self._shown_at >= self._every

    @contextmanager
    def compiling(self, number: int, of: int) -> Iterator[None]:
        """Times a step that is compiled first; all steps before it have to be done.

        Args:
            number: of the shape of its batch, from 1.
            of: number of shapes.
        """
        self._measure()
        self._say(f"compiling shape {number} of {of}")
        yield
        self._leave_out()
        self._bar.set_description_str("")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Times an evaluation."""
        before = self._compiled()
        yield
        self._records.append(max(self._leave_out() - (self._compiled() - before), 0.0))
        self._waits = False

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Times a saving."""
        yield
        self._saves.append(self._leave_out())

    def update(self, step: int, fetched: list[dict[str, np.ndarray]]) -> None:
        """Takes in the metrics of the last steps and shows them when it is time.

        Args:
            step: the last of these steps, all of them done.
            fetched: their metrics, with "loss" and "crystals", of one run or of several.
        """
        due = self.is_due()
        self._measure()
        self._step = step
        self._crystals += [float(np.sum(metrics["crystals"])) for metrics in fetched]
        self._bar.update(step - self._bar.n)
        if not due or not self._work:
            return
        left = in_words(self.seconds_left())
        if self._estimate is None:
            self._waits = self._evaluates_soon()
            if not self._waits:
                self._tell(left)
        rate = float(np.mean(self._crystals)) * self._steps / self._seconds
        loss = f"loss {float(np.mean(fetched[-1]['loss'])):.4g}, {rate:.0f} structures/s"
        self._bar.set_postfix_str(f"{left} left, {loss}")
        if self._bar.disable and time.monotonic() - self._shown_at >= self._every:
            _logger.info("step %d of %d, %s, %s left", step, self._total_steps, loss, left)
        self._shown_at = time.monotonic()
        self._crystals.clear()

    def seconds_left(self) -> float:
        """Returns an estimate of the time to the end, what is still to be compiled not counted."""
        step = self._seconds / self._work
        steps = self._total_steps - self._step
        record = _mean_after_first(self._records, self._record_work * step)
        save = _mean_after_first(self._saves, 0.0)
        records, saves = -(-steps // self._record_every), -(-steps // self._save_every)
        return steps * step + records * record + saves * save

    def close(self) -> None:
        """Leaves the bar as it stands; at the last step holds the estimate against the truth."""
        self._bar.close()
        if self._estimate is None or self._step < self._total_steps or not hosts.is_first():
            return
        seconds, at, compiled = self._estimate
        took = time.monotonic() - at - (self._compiled() - compiled)
        _logger.info("training: %s", kept(seconds, took))

    def _evaluates_soon(self) -> bool:
        """Whether an evaluation has to be measured that comes soon and is not the end."""
        steps = self._record_every - self._step % self._record_every
        ends = self._step + steps >= self._total_steps
        measured = len(self._records) >= _FIRST_RECORDS
        return not measured and not ends and steps * self._seconds / self._work < _SOON

    def _tell(self, left: str) -> None:
        """Says before it all goes on how long it will take."""
        each = self._seconds / self._work
        steps = self._total_steps - self._step
        text = (
            f"about {left}: {steps} steps of {each:.2g} s, with evaluations; compiling comes on top"
        )
        self._bar.clear()
        _logger.info("%s", text)
        self._bar.refresh()
        self._estimate = _Estimate(self.seconds_left(), time.monotonic(), self._compiled())

    def _say(self, text: str) -> None:
        if self._bar.disable and hosts.is_first():
            _logger.info("%s", text)
        self._bar.set_description_str(f"{text} ")

    def _measure(self) -> None:
        """Adds the steps since the last time, all of them done, to those that were timed."""
        now = time.monotonic()
        if self._new_steps:
            self._seconds += now - self._mark
            self._work += self._new_work
            self._steps += self._new_steps
        self._mark, self._new_work, self._new_steps = now, 0.0, 0

    def _leave_out(self) -> float:
        """Returns the seconds since the last time, which are not those of a step."""
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        return seconds


def _mean_after_first(durations: list[float], guess: float) -> float:
    """Returns the mean without the first, which sets things up, or a guess before there is one."""
    return float(np.mean(durations[1:] or durations)) if durations else guess
