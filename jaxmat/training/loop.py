"""The training loop: steps, records, savings and a word on progress."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmat.batch import Shape
from jaxmat.runtime.compiling import CompileClock
from jaxmat.runtime.stopping import saving_first
from jaxmat.training.feeding import made_ahead
from jaxmat.training.progress import Progress
from jaxmat.training.sending import Sent
from jaxmat.training.state import TrainState
from jaxmat.training.step import TrainStep

_logger = logging.getLogger(__name__)

# Of one step; scalars, or one number for each member of a population.
Metrics = dict[str, np.ndarray]
# JSON values, see `_Counts`.
Tally = dict[str, Any]

# What a record says of the training: the mean of which metric.
_MEANS = {"train_loss": "loss", "grad_norm": "grad_norm"}


class Fitted(NamedTuple):
    """What a training comes to.

    Attributes:
        state: after the last step that was done.
        step: number of that step.
        compiling_seconds: that compiling took.
    """

    state: TrainState
    step: int
    compiling_seconds: float


@saving_first()
def fit(
    state: TrainState,
    train_step: TrainStep,
    batches_from: Callable[[int], Iterator[Sent]],
    *,
    step: int,
    total_steps: int,
    record: Callable[[int, TrainState, Metrics], bool],
    record_every: int,
    save: Callable[[TrainState, Tally], None],
    save_every: int,
    describe_batch: Callable[[int], str],
    skipped_in_a_row: int,
    give_up: Callable[[int, str], bool],
    given_up: Collection[int] = (),
    tally: Mapping[str, Any] = types.MappingProxyType({}),
    stop: Callable[[int], bool] = lambda step: False,
    work: Mapping[Shape, float] = types.MappingProxyType({}),
    record_work: float = 0.0,
) -> Fitted:
    """Trains from a step to the last, or until it is told to stop.

    A run that was stopped and goes on from what was last saved ends, on a CPU bit for bit, as the
    run that was never stopped.

    Args:
        state: where to start; a compiled step that donates it makes it unusable.
        train_step: compiled training step.
        batches_from: gives the batches from a step on, without end; they are made in a thread. The
            batch of a step may depend on nothing but that step (and a seed).
        step: number of steps done.
        total_steps: number of the last step.
        record: takes the step, the state and the mean "train_loss" and "grad_norm" since the last
            record; evaluates, writes, and says whether the training is to end here. There is a
            record after the last step as well.
        record_every: steps between records.
        save: writes the state and a tally to go on with; it is called at the end as well.
        save_every: steps between savings.
        describe_batch: names the crystals of a step.
        skipped_in_a_row: after so many steps in a row whose loss or gradient is not finite (they
            change nothing) a training is given up.
        give_up: takes the member of a population that is given up (0 where there is one training)
            and what is to be said of it; says whether all ends here.
        given_up: members that were given up before the step that is started from.
        tally: what was saved with the state that is started from.
        stop: asked after every step, with its number, whether to save and return.
        work: of a step with a batch of each shape, relative to that of a mean step: with what
            was measured it tells how long the rest will take.
        record_work: of a record likewise, a guess until it is measured.

    Returns:
        The state after the last step that was done, and the number of that step.
    """
    pending: list[dict[str, jax.Array]] = []  # metrics that are perhaps not computed yet
    counts = _Counts(describe_batch, skipped_in_a_row, given_up, tally)
    compiled: set[Shape] = set()
    finished = step >= total_steps or stop(step)
    compiled_seconds = CompileClock()
    progress = Progress(
        *(step, total_steps),
        record_every=record_every,
        save_every=save_every,
        record_work=record_work,
        compiled=compiled_seconds,
    )
    with (
        closing(compiled_seconds),
        closing(progress),
        made_ahead(batches_from(step)) as batches,
    ):
        while not finished:
            batch = next(batches)
            if (shape := batch.shape) in compiled:
                state, metrics = train_step(state, batch)
                progress.count(work.get(shape, 1.0))
            else:
                compiled.add(shape)
                jax.block_until_ready(pending)  # their time is not the compiler's
                with progress.compiling(len(compiled), max(len(work), len(compiled))):
                    state, metrics = jax.block_until_ready(train_step(state, batch))
            step += 1
            pending.append(metrics)
            finished = step == total_steps or stop(step)
            records = step % record_every == 0 or step == total_steps
            saves = step % save_every == 0
            if not (records or saves or finished or progress.is_due()):
                continue  # fetching a metric waits for its step, so it is not done at each
            fetched: list[Metrics] = jax.device_get(pending)
            pending.clear()
            progress.update(step, fetched)
            for member, reason in counts.count(fetched, step).items():
                finished = give_up(member, reason) or finished
            if records:
                with progress.recording():
                    finished = record(step, state, counts.take_means()) or finished
            if saves or finished:
                with progress.saving():
                    save(state, counts.tally())
    return Fitted(state, step, compiled_seconds())


class _Counts:
    """Sums metrics since the last record, counts skipped steps in a row and warns of them."""

    def __init__(
        self,
        describe_batch: Callable[[int], str],
        most_in_a_row: int,
        given_up: Collection[int],
        tally: Mapping[str, Any],
    ):
        self._describe, self._most = describe_batch, most_in_a_row
        self._broken = set(given_up)
        self._in_a_row = np.asarray(tally.get("skipped_in_a_row", 0))
        self._sums = {name: np.asarray(tally.get(name, 0.0)) for name in ("steps", *_MEANS)}

    def tally(self) -> Tally:
        """Returns what a loop that goes on needs to know of the steps before."""
        counts = {**self._sums, "skipped_in_a_row": self._in_a_row}
        return {name: count.tolist() for name, count in counts.items()}

    def take_means(self) -> Metrics:
        """Returns means over the steps since the last record that were not skipped."""
        sums, self._sums = self._sums, dict.fromkeys(self._sums, np.asarray(0.0))
        return {name: sums[name] / np.maximum(sums["steps"], 1) for name in _MEANS}

    def count(self, fetched: list[Metrics], step: int) -> dict[int, str]:
        """Returns the members that have now had too many in a row, and what is to be said of them.

        Args:
            fetched: metrics of the last steps.
            step: the last of them.
        """
        broken: dict[int, str] = {}
        for number, metrics in enumerate(fetched, start=step - len(fetched) + 1):
            counted = 1.0 - metrics["skipped"]
            self._sums["steps"] = self._sums["steps"] + counted
            for name, key in _MEANS.items():
                value = np.where(counted > 0, metrics[key], 0.0)
                self._sums[name] = self._sums[name] + value.astype(np.float64)
            self._in_a_row = (self._in_a_row + metrics["skipped"]) * metrics["skipped"]
            skipped = set(np.flatnonzero(metrics["skipped"]).tolist())
            if not skipped - self._broken:
                continue
            what = (
                f"step {number}: loss {metrics['loss']}, norm of its gradient "
                f"{metrics['grad_norm']}. Crystals: {self._describe(number - 1)}"
            )
            too_many = set(np.flatnonzero(self._in_a_row >= self._most).tolist()) - self._broken
            self._broken |= too_many
            broken |= dict.fromkeys(
                sorted(too_many),
                f"Training broke down: {self._most} steps in a row had no finite loss and "
                f"gradient and were skipped, the last at {what}. Lower the learning rate, or "
                "look for extreme targets; the state before those steps is saved.",
            )
            if len(self._broken) == np.size(metrics["skipped"]):
                break
            _logger.warning("Skipped %s", what)
        return broken
