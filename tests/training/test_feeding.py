"""Batches are made ahead, in order; what goes wrong in the thread comes out where they are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from jaxmat.training.feeding import AHEAD, delayed, made_ahead

PATIENCE = 60.0  # seconds, of a machine that is busy


def test_all_come_in_order():
    with made_ahead(iter(range(20))) as batches:
        assert list(batches) == list(range(20))
    with made_ahead(iter([])) as batches:
        assert list(batches) == []


def test_the_next_are_made_while_one_is_used():
    """By another thread, and no more of them than are asked for."""
    made: list[int] = []
    there = threading.Semaphore(0)

    def make() -> Iterator[threading.Thread]:
        for number in range(20):
            made.append(number)
            there.release()
            yield threading.current_thread()

    with made_ahead(make()) as batches:
        assert next(batches) is not threading.current_thread()
        for _ in range(1 + AHEAD):
            assert there.acquire(timeout=PATIENCE)
        assert made == [0, 1, 2]
    assert made == [0, 1, 2]  # whoever leaves early lets no more be made


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_out_at_its_batch(error):
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise error("of the third")

    with made_ahead(make()) as batches:
        assert [next(batches), next(batches)] == [1, 2]
        with pytest.raises(error, match="of the third"):
            next(batches)


def test_an_error_of_the_user_ends_the_thread():
    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"), made_ahead(iter(range(5))) as batches:
        next(batches)
        raise ValueError("mine")
    assert threading.active_count() == before


@pytest.mark.parametrize("by", [0, 1, 2, 10])
def test_delayed_items_come_late_but_all(by):
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            asked.append(number)
            yield number

    late = delayed(items(), by)
    assert next(late) == 0
    assert asked == list(range(min(5, by + 1)))
    assert list(late) == [1, 2, 3, 4]
