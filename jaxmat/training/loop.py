"""The training loop: steps, records, savings and a word on progress."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import jax
import numpy as np

from jaxmat.batch import Shape
from jaxmat.errors import UserError
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
    save: Callable[[TrainState], None],
    save_every: int,
    describe_batch: Callable[[int], str],
    skipped_in_a_row: int,
    given_up: Collection[int] = (),
    give_up: Callable[[int, str], None] = lambda member, reason: None,
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
        save: writes the state; it is called at the end as well.
        save_every: steps between savings.
        describe_batch: names the crystals of a step.
        skipped_in_a_row: so many steps in a row whose loss or gradient is not finite (they change
            nothing) end the run; of a population only where all members have had them.
        given_up: members that had them before the step that is started from.
        give_up: takes a member that has had them while others go on, and what is to be said of it.
        stop: asked after every step, with its number, whether to save and return.
        work: of a step with a batch of each shape, relative to that of a mean step: with what
            was measured it tells how long the rest will take.
        record_work: of a record likewise, a guess until it is measured.

    Returns:
        The state after the last step that was done, and the number of that step.

    Raises:
        UserError: too many steps in a row were skipped; the state is saved before.
    """
    pending: list[dict[str, jax.Array]] = []  # metrics that are perhaps not computed yet
    done: list[Metrics] = []  # metrics of all steps since the last record
    skips = _Skips(describe_batch, skipped_in_a_row, given_up)
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
            done += fetched
            progress.update(step, fetched)
            broken = skips.count(fetched, step)
            if skips.is_end():
                save(state)
                raise UserError(broken.popitem()[1])
            for member, reason in broken.items():
                give_up(member, reason)
            if records:
                with progress.recording():
                    finished = record(step, state, _training_means(done)) or finished
                done.clear()
            if saves or finished:
                with progress.saving():
                    save(state)
    return Fitted(state, step, compiled_seconds())


class _Skips:
    """Counts skipped steps and warns of them."""

    def __init__(
        self,
        describe_batch: Callable[[int], str],
        most_in_a_row: int,
        given_up: Collection[int],
    ):
        self._describe, self._most = describe_batch, most_in_a_row
        self._in_a_row: np.ndarray | int = 0
        self._broken, self._members = set(given_up), 0

    def is_end(self) -> bool:
        """Whether no member is left that did not have too many."""
        return 0 < self._members <= len(self._broken)

    def count(self, fetched: list[Metrics], step: int) -> dict[int, str]:
        """Returns the members that have now had too many in a row, and what is to be said of them.

        Args:
            fetched: metrics of the last steps.
            step: the last of them.
        """
        broken: dict[int, str] = {}
        for number, metrics in enumerate(fetched, start=step - len(fetched) + 1):
            skipped = np.atleast_1d(metrics["skipped"])
            self._members = len(skipped)
            self._in_a_row = (self._in_a_row + skipped) * skipped
            if not set(np.flatnonzero(skipped).tolist()) - self._broken:
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
            if self.is_end():
                break
            _logger.warning("Skipped %s", what)
        return broken


def _training_means(metrics: list[Metrics]) -> Metrics:
    """Means over the steps that were not skipped of what a record says about the training."""
    counted = np.stack([1 - each["skipped"] for each in metrics])
    return {
        name: np.sum(np.stack([each[key] for each in metrics]), axis=0, where=counted > 0)
        / np.maximum(counted.sum(axis=0), 1)
        for name, key in (("train_loss", "loss"), ("grad_norm", "grad_norm"))
    }
