"""Signals that end a program as soon as the work under way is saved.

While signals are received, what waits or computes says where it may be given up: between two things
(`give_up_if_told`) or at any moment (`giving_up_at_once`). What has to be saved first, a training,
asks its `Stop` instead.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import TypeVar

STOPPED = 4  # exit code of a program that was stopped and has saved its work
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Item = TypeVar("Item")

# Signals belong to the process and not to a function; threads other than the main one have none.
_receiving: ContextVar[Stop | None] = ContextVar("receiving", default=None)


class Stopped(BaseException):
    """What was under way is given up because of a signal; nothing of it is left half done.

    Attributes:
        signal: that has come.
    """

    def __init__(self, number: signal.Signals) -> None:
        """Notes the signal."""
        super().__init__(number.name)
        self.signal = number


class Stop:
    """Whether to save and return, asked after every step of a training.

    Attributes:
        signal: the one that has come to this process, None before.
        step: of the training that was told to stop, None before.
        at_once: whether a signal ends what is under way when it comes.
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
        self.at_once = False

    def __call__(self, step: int) -> bool:
        """Returns whether a signal has come, to this process or another.

        Args:
            step: number of steps that the training has done.
        """
        stops = self._agree(self.signal is not None)
        if stops:
            self.step = step
        return stops

    def give_up(self) -> None:
        """To be called where work can be given up.

        Raises:
            Stopped: a signal has come.
        """
        if self.signal is not None:
            raise Stopped(self.signal)

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items for as long as no signal has come; what is done with one is finished.

        Raises:
            Stopped: one has come.
        """
        for item in items:
            yield item
            self.give_up()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal; the next one ends the process at once, as if there were no `Stop`.

        Args:
            number: of the signal.
            frame: not looked at.
        """
        self.signal = signal.Signals(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        word = f"\n{self.signal.name}: will stop soon; a second signal ends it at once\n"
        # Not a logger or print: the signal may have come in the middle of one of theirs.
        with suppress(OSError):  # the terminal may be gone
            os.write(2, word.encode())
        if self.at_once:
            self.give_up()


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
    # Several processes that are one program end together, so each of them asks.
    token = _receiving.set(stop if agree is bool else None)
    try:
        yield stop
    finally:
        _receiving.reset(token)
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def passing_signals_on() -> Iterator[Stop]:
    """Receives signals for a function that is called from Python, then passes on what has come.

    A KeyboardInterrupt in the middle would leave XLA compiling in a thread of its own, which ends
    the process with a segmentation fault when it finds its client gone. So the signal waits until
    the work can stop, and then has the effect that it would have had: SIGINT most often raises
    KeyboardInterrupt. In a thread other than the main one Python hears no signals.

    Raises:
        KeyboardInterrupt: SIGINT has come, and Python's own handler was there before.
        Stopped: work was given up, and the handler that was there before raises nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    given_up: Stopped | None = None
    with stop_on_signals() as stop:
        try:
            yield stop
        except Stopped as stopped:
            given_up = stopped
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
    if given_up is not None:
        raise given_up


@contextmanager
def giving_up_on_signals() -> Iterator[None]:
    """Lets SIGTERM, SIGINT and SIGUSR1 end what is under way at once, with its files put away.

    Not for work that compiles; see `passing_signals_on`.

    Raises:
        Stopped: a signal has come.
    """
    with stop_on_signals(), giving_up_at_once():
        yield


def give_up_if_told() -> None:
    """To be called between two of many things that take time, where nothing has to be saved.

    Raises:
        Stopped: a signal has come.
    """
    if (stop := _receiving.get()) is not None:
        stop.give_up()


@contextmanager
def giving_up_at_once() -> Iterator[None]:
    """Lets a signal that is received end what is under way here when it comes.

    For waiting, and for long work that compiles nothing and can be left in the middle.

    Raises:
        Stopped: a signal has come.
    """
    stop = _receiving.get()
    if stop is None:
        yield
        return
    before = stop.at_once
    try:
        stop.at_once = True
        stop.give_up()
        yield
    finally:
        stop.at_once = before
    stop.give_up()


def waited_for(items: Iterable[Item]) -> Iterator[Item]:
    """Yields items; a signal ends the wait for the next one at once.

    Raises:
        Stopped: a signal has come.
    """
    end = object()
    iterator = iter(items)
    while True:
        with giving_up_at_once():
            item = next(iterator, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


@contextmanager
def saving_first() -> Iterator[None]:
    """Lets nothing be given up in the context: what is done there asks and saves by itself."""
    token = _receiving.set(None)
    try:
        yield
    finally:
        _receiving.reset(token)


@contextmanager
def deaf_processes() -> Iterator[None]:
    """Lets processes that are started in the context hear no signal of `SIGNALS`.

    Ctrl-C reaches all processes of a terminal, and a scheduler tells all those of a job. Helpers
    are ended by the process that started them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
