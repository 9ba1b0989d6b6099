"""What a device waits for: making batches on the host, sending them, and the loop of a training."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.throughput import sample
from jaxmat.batch import CrystalBatch
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset, TrainingBatches
from jaxmat.data.contents import Contents
from jaxmat.data.order import Order
from jaxmat.data.store import append, open_store
from jaxmat.experiments import defaults
from jaxmat.training.loop import fit
from jaxmat.training.sending import send_packed

_CRYSTALS, _TURNS = 1024, 100
STEPS = 500
# XLA lets 32 programs wait for a GPU or a TPU (`max_inflight_computations` of its clients) before
# the call of another one blocks; a step is two.
IN_FLIGHT = 16


class HostTimes(NamedTuple):
    """What a batch takes on the host, one thread, medians.

    Attributes:
        making: milliseconds of making it from the store.
        sending: milliseconds of sending it to a device.
    """

    making: float
    sending: float


class Stream:
    """A device that does one program after the other, each of which takes the same time.

    It is reckoned, not run: no thread of its own takes part in what is measured. As of a device
    that computes, a number that it gives can be waited for, and it is called without waiting for
    it as long as not too many programs are in flight.

    Attributes:
        waited: seconds without a program, after the first.
        worked: seconds with one.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Starts with nothing to do.

        Args:
            seconds: of a program.
            now: tells the time in seconds.
            sleep: waits for so many seconds.
        """
        self.waited = self.worked = 0.0
        self._seconds, self._now, self._sleep = seconds, now, sleep
        self._ends = deque[float](maxlen=IN_FLIGHT)

    def submit(self) -> float:
        """Takes a program, once there is room for it; returns when it will be done."""
        if len(self._ends) == IN_FLIGHT:
            self.wait_until(self._ends[0])
        begins = now = self._now()
        if self._ends:
            begins = max(now, self._ends[-1])
            self.waited += begins - self._ends[-1]
        self.worked += self._seconds
        self._ends.append(begins + self._seconds)
        return self._ends[-1]

    def wait_until(self, moment: float) -> None:
        """Returns at a moment, or at once where it has passed."""
        if (left := moment - self._now()) > 0:
            self._sleep(left)

    def step(self, state: Any, batch: CrystalBatch) -> tuple[Any, dict[str, Any]]:
        """Stands for a compiled training step; the state is not looked at."""
        jax.block_until_ready(batch)
        done = self.submit()
        return state, {name: _Promised(self, done) for name in _METRICS}


_METRICS = ("loss", "grad_norm", "crystals", "skipped")


class _Promised:
    """A number that a device has not computed yet."""

    def __init__(self, stream: Stream, done: float) -> None:
        self._stream, self._done = stream, done

    def block_until_ready(self) -> _Promised:
        self._stream.wait_until(self._done)
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.block_until_ready()
        return np.zeros((), dtype or np.float32)


@contextmanager
def stored(file: Path) -> Iterator[Dataset]:
    """Gives crystals of a table as training has them, in a store."""
    structures = sample(file, _CRYSTALS)
    keys = Contents.of(structures).keys()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        append(folder, GraphSettings(), keys, build_graphs(structures, GraphSettings()))
        graphs = open_store(folder)
        yield Dataset(graphs, np.random.default_rng(0).normal(size=(len(graphs), 1)))


def batches_of(data: Dataset, size: int) -> TrainingBatches:
    """Returns the batches of a training."""
    config = defaults.training()
    order = Order(len(data.graphs), size, epochs=STEPS, seed=0, drop_last=True)
    return TrainingBatches([(data, order)], max_shapes=config.max_shapes, stacked=False)


def time_host(data: Dataset, size: int) -> tuple[CrystalBatch, HostTimes]:
    """Returns a batch, and what one takes on the host."""
    batches, seconds = batches_of(data, size).from_step(0), []
    for _ in range(_TURNS):
        began = time.perf_counter()
        batch = next(batches)
        made = time.perf_counter()
        jax.block_until_ready(send_packed(batch))
        seconds.append((made - began, time.perf_counter() - made))
    return batch, HostTimes(*(1e3 * np.median(seconds, axis=0)).tolist())


def share_of_waiting(
    batches_from: Callable[[int], Iterator[CrystalBatch]], step: float, steps: int = STEPS
) -> float:
    """Returns the share of its time that a device waits for work in a training.

    The loop of a training runs as it is, with its thread that makes batches and sends them; a
    `Stream` is in the place of the device.

    Args:
        batches_from: gives the batches from a step on.
        step: seconds of a training step.
        steps: how many there are.
    """
    stream = Stream(step)
    fit(
        None,  # type: ignore[arg-type] # the stream has no state
        stream.step,
        lambda start: map(send_packed, batches_from(start)),
        step=0,
        total_steps=steps,
        record=lambda step, state, metrics: False,
        record_every=steps,
        save=lambda state, tally: None,
        save_every=steps,
        describe_batch=str,
        skipped_in_a_row=steps,
        give_up=lambda member, reason: True,
    )
    return stream.waited / (stream.waited + stream.worked)
