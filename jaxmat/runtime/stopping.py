"""Signals that end a program as soon as the work under way is saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPED = 4  # exit code of a program that was stopped and has saved its work
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stop:
    """Whether to save and return, asked after every step of a training.

    Attributes:
        signal: the one that has come to this process, None before.
        step: of the training that was told to stop, None before.
    """

    def __init__(self, agree: Callable[[bool], bool] = bool) -> None:
        """No signal has come.

        Args:
            agree: from whether this process has to stop to whether it does; see
                `jaxmat.runtime.hosts.agreement`.
        """
        self._agree = agree
        self.signal: signal.Signals | None = None
        self.step: int | None = None

    def __call__(self, step: int) -> bool:
        """Returns whether a signal has come, to this process or another.

        Args:
            step: number of steps that the training has done.
        """
        stops = self._agree(self.signal is not None)
        if stops:
            self.step = step
        return stops

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal; the next one ends the process at once, as if there were no `Stop`.

        Args:
            number: of the signal.
            frame: not looked at.
        """
        self.signal = signal.Signals(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        word = f"\n{self.signal.name}: will save and stop; a second signal ends it at once\n"
        # Not a logger or print: the signal may have come in the middle of one of theirs.
        with suppress(OSError):  # the terminal may be gone
            os.write(2, word.encode())


@contextmanager
def stop_on_signals(agree: Callable[[bool], bool] = bool) -> Iterator[Stop]:
    """Receives SIGTERM, SIGINT and SIGUSR1 for as long as the context lasts.

    To be used by programs, in their main thread. Python hears of a signal when the step, the
    compilation or whatever else is under way in another language comes to its end.

    Args:
        agree: see `Stop`.
    """
    stop = Stop(agree)
    before = {each: signal.signal(each, stop.receive) for each in SIGNALS}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
