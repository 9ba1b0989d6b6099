"""Trainings that are one program: what is recorded and saved of them, which have ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxmat.errors import UserError
from jaxmat.experiments.records import Records, Variables
from jaxmat.training.checkpoints import Checkpoints
from jaxmat.training.loop import Metrics, Tally
from jaxmat.training.state import TrainState, averaged_variables

_logger = logging.getLogger(__name__)


class Joint:
    """Trainings that are one program, often a single one, each with records and an end of its own.

    Attributes:
        broken: number of each that broke down → why.
        tally: what was saved for the loop that goes on, see `jaxmat.training.loop.fit`.
    """

    def __init__(
        self,
        records: Sequence[Records],
        names: Sequence[str],
        checkpoints: Checkpoints,
        take: Callable[[TrainState], TrainState],
        steps_per_epoch: int,
    ) -> None:
        """Reads which of them had broken down when their state was last saved.

        Args:
            records: of each training.
            names: of the trainings, in what is saved with a state.
            checkpoints: of the state of all.
            take: turns the state of the loop into one of checkpoints.
            steps_per_epoch: of the batches.
        """
        self._records, self._names, self._checkpoints = records, names, checkpoints
        self._take, self._steps_per_epoch = take, steps_per_epoch
        saved = checkpoints.said_with_last()
        self.tally: Tally = saved.get("tally", {})
        # A single training that broke down tries again when it is started again.
        reasons = saved.get("broken", {}) if len(records) > 1 else {}
        self.broken = {i: reasons[name] for i, name in enumerate(names) if name in reasons}

    @property
    def is_over(self) -> bool:
        """Whether no training goes on."""
        return not self._going_on()

    def _going_on(self) -> list[int]:
        ended = [one.is_over for one in self._records]
        return [i for i, over in enumerate(ended) if not over and i not in self.broken]

    def give_up(self, i: int, reason: str) -> bool:
        """Notes that a training broke down, unless it had ended before; see `fit`."""
        if not self._records[i].is_over:
            self.broken[i] = reason
            if len(self._records) > 1:
                _logger.warning("%s is given up", self._records[i].workdir)
        return self.is_over

    def record(self, step: int, state: TrainState, means: Metrics) -> bool:
        """Evaluates the trainings that go on; see `fit`."""
        variables = averaged_variables(self._take(state))
        epoch = step / self._steps_per_epoch
        for i in self._going_on():
            self._records[i].write(step, epoch, self._part(variables, i), self._part(means, i))
        return self.is_over

    def save(self, state: TrainState, tally: Tally) -> None:
        """Saves a state to go on from, which is never newer on the disk than the best variables."""
        if all([one.checkpoints.write_waiting() for one in self._records]):
            broken = {self._names[i]: reason for i, reason in self.broken.items()}
            self._checkpoints.save_last(self._take(state), {"broken": broken, "tally": tally})

    def finish(self) -> None:
        """Returns once all that is saved is on the disk."""
        for checkpoints in (*(one.checkpoints for one in self._records), self._checkpoints):
            checkpoints.finish()

    def outcomes(self, state: TrainState) -> list[Variables | UserError]:
        """Returns the variables of each to test, or why there are none.

        Args:
            state: after the last step.
        """
        last = averaged_variables(self._take(state))
        return [
            UserError(self.broken[i]) if i in self.broken else one.outcome(self._part(last, i))
            for i, one in enumerate(self._records)
        ]

    def _part(self, tree: Any, i: int) -> Any:
        """Returns what belongs to a training; of a single one that is the whole tree."""
        return tree if len(self._records) == 1 else jax.tree.map(lambda leaf: leaf[i], tree)
