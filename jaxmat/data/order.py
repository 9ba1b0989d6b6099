"""Which crystals a training step sees: a function of (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmat.errors import UserError


@dataclass(frozen=True)
class Order:
    """Shuffled epochs of exactly `batch_size` crystals; any step can be had without those before.

    Attributes:
        crystals: number of training crystals.
        batch_size: crystals of a batch; the last of an epoch is smaller.
        epochs: passes over the data.
        seed: of the shuffling.
        drop_last: leave out an epoch's last batch where it is smaller.
    """

    crystals: int
    batch_size: int
    epochs: int
    seed: int
    drop_last: bool

    def __post_init__(self) -> None:
        """Refuses an order without a batch."""
        if not self.steps_per_epoch:
            raise UserError(
                f"{self.crystals} training crystals make no batch of {self.batch_size}; lower "
                "training.batch_size or set training.drop_last=False."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        if self.drop_last:
            return self.crystals // self.batch_size
        return -(-self.crystals // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Batches of the whole run."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, number: int) -> np.ndarray:
        """Returns the crystals of an epoch in order, -1 where the last batch is not full.

        Returns:
            [steps_per_epoch, batch_size].
        """
        rows = self.steps_per_epoch * self.batch_size
        order = np.random.RandomState([self.seed, number]).permutation(self.crystals)[:rows]
        padded = np.full(rows, -1)
        padded[: len(order)] = order
        return padded.reshape(self.steps_per_epoch, self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """Returns the crystals of one step, in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        row = self.epoch(epoch)[position]
        return row[row >= 0]
