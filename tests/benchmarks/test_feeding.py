"""The device that stands for an accelerator where it is measured how long one would wait."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.feeding import IN_FLIGHT, Stream, share_of_waiting
from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def a_batch() -> CrystalBatch:
    none = np.zeros(0, np.int32)
    atom = CrystalGraph(np.ones(1, np.int32), np.ones(1, np.int32), *[none] * 8)
    return batch_crystals([atom], np.zeros((1, 1)), Shape(2, 16, 16, 16))


def test_a_device_with_enough_to_do_never_waits_and_the_host_waits_for_room():
    clock = Clock()
    stream = Stream(4.0, clock, clock.sleep)
    ends = [stream.submit() for _ in range(IN_FLIGHT + 3)]
    assert ends == [4.0 * n for n in range(1, IN_FLIGHT + 4)]
    assert stream.waited == 0
    assert clock.now == 3 * 4.0  # the first three are done


@pytest.mark.parametrize("making", [5.0, 6.0, 8.0])
def test_a_device_waits_for_what_takes_longer_to_make_than_to_compute(making):
    clock = Clock()
    stream = Stream(4.0, clock, clock.sleep)
    for _ in range(100):
        clock.sleep(making)
        stream.submit()
    share = stream.waited / (stream.waited + stream.worked)
    assert share == pytest.approx(1 - 4 / making, rel=0.02)


def test_slow_batches_show_in_the_loop_of_a_training():
    """However busy the machine: what else takes time only adds to it."""

    def slow() -> Iterator[CrystalBatch]:
        while True:
            time.sleep(0.006)
            yield a_batch()

    assert share_of_waiting(lambda step: slow(), 0.004, steps=30) > 0.3
