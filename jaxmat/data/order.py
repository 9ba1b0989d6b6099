"""Which crystals a training step sees: a function of (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        visits: how often each crystal is seen in an epoch on average, [crystals]; their sum is
            their number. None: each once.
    """

    crystals: int
    batch_size: int
    epochs: int
    seed: int
    drop_last: bool
    visits: np.ndarray | None = field(default=None, compare=False)

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
        random = np.random.RandomState([self.seed, number])
        order = random.permutation(self.crystals)
        if self.visits is not None:
            order = random.permutation(_draw(self.visits[order], random.uniform(), order))
        order = order[:rows]
        padded = np.full(rows, -1)
        padded[: len(order)] = order
        return padded.reshape(self.steps_per_epoch, self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """Returns the crystals of one step, in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        row = self.epoch(epoch)[position]
        return row[row >= 0]


def visits_by_property(target: np.ndarray, temperature: float) -> np.ndarray:
    """Returns how often crystals are seen where their properties take turns.

    A property with n labels has its turn as often as n^(1 / temperature), and each of its labels
    alike (Shoghi et al., arXiv 2310.16802): at 1 every label is seen equally often, at infinity
    every property.

    Args:
        target: NaN where missing, [crystals, properties].
        temperature: above 0.

    Returns:
        Visits in an epoch of as many crystals as there are, [crystals].
    """
    present = ~np.isnan(target)
    labels = np.maximum(present.sum(axis=0), 1)
    # Of the largest property, so that no power overflows.
    weights = present @ ((labels / labels.max()) ** (1.0 / temperature - 1.0))
    return weights * (len(target) / weights.sum())


def _draw(visits: np.ndarray, offset: float, crystals: np.ndarray) -> np.ndarray:
    """Returns as many crystals as there are, each at most one visit off its average number.

    Systematic sampling: `offset`, 0 to 1, is where the comb of visits begins.
    """
    ends = np.floor(np.cumsum(visits) + offset).astype(np.int64)
    ends[-1] = len(crystals)  # whatever rounding did to the sum
    return np.repeat(crystals, np.diff(ends, prepend=0))
