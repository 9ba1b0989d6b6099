"""Devices that need not wait: what comes next is made while they work on what came before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Batches that wait for a device: one to be taken at once, and one to be made meanwhile.
AHEAD = 2


@contextmanager
def made_ahead(batches: Iterator[T]) -> Iterator[Iterator[T]]:
    """Gives the batches, in order; a thread makes the next.

    Args:
        batches: made one after the other, in the thread; they are not closed.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:

        def ready() -> Iterator[T]:
            def submit() -> None:
                pending.append(thread.submit(next, batches, end))

            pending: deque[Future[T | object]] = deque()
            for _ in range(AHEAD):
                submit()
            while (batch := pending.popleft().result()) is not end:
                submit()
                yield batch  # type: ignore[misc]

        try:
            yield ready()
        finally:
            thread.shutdown(cancel_futures=True)


def delayed(items: Iterable[T], by: int) -> Iterator[T]:
    """Yields items some places late: of computations that are started those that are done by now.

    Args:
        items: in order.
        by: how many others are asked for before one is yielded.
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting
