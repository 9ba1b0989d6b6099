"""Batches of few fixed shapes, their content a function of (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.order import Order
from jaxmat.data.shapes import (
    divide,
    graph_sizes,
    place_shapes,
    real_share,
    relative_work,
    shard_rows,
    smallest_shape,
)
from jaxmat.data.store import GraphStore

# The order of a batch that is not full ends in -1, which is this last row of the sizes.
_NO_CRYSTAL = np.zeros((1, 3), np.int64)


class Dataset(NamedTuple):
    """Crystals with their scaled targets.

    Attributes:
        graphs: one for each crystal, in memory or read from a store when asked for.
        target: scaled targets, NaN where missing, [crystals, properties].
    """

    graphs: Sequence[CrystalGraph]
    target: np.ndarray

    def take(self, indices: np.ndarray) -> Dataset:
        """Returns some of the crystals."""
        if isinstance(self.graphs, GraphStore):
            return Dataset(self.graphs.take(indices), self.target[indices])
        return Dataset([self.graphs[i] for i in indices], self.target[indices])

    def batch(
        self, indices: np.ndarray, shape: Shape, dtype: np.dtype | type = np.float32
    ) -> CrystalBatch:
        """Returns some of the crystals, padded to a shape; see `batch_crystals`."""
        chosen = self.take(indices)
        graphs = chosen.graphs.joined() if isinstance(chosen.graphs, GraphStore) else chosen.graphs
        return batch_crystals(graphs, chosen.target, shape, dtype)


class TrainingBatches:
    """The batches of a training run, of several alike at once, or of one spread over devices.

    At every step each run (member) sees the crystals of its own order, divided among `shards`
    devices. All parts of a step are padded to one shape and, where there can be more than one,
    stacked along a leading axis. The ladder of shapes is placed for the very batches of the run,
    none of which can overflow.

    Attributes:
        shapes: those used, smallest first.
        work: of a step of each shape, relative to that of a mean step.
        steps_per_epoch: of each member.
        total_steps: of each member.
    """

    def __init__(
        self,
        members: Sequence[tuple[Dataset, Order]],
        *,
        max_shapes: int,
        stacked: bool,
        shards: int = 1,
        local_shards: Sequence[int] | None = None,
        dtype: np.dtype | type = np.float32,
        platform: str = "cpu",
    ) -> None:
        """Plans the run.

        Args:
            members: the training crystals of each member and their order; all orders have the
                same number of steps.
            max_shapes: number of shapes at most, each compiled once.
            stacked: give batches a leading axis, [members · local shards, ...]; without it there
                is one member and one shard.
            shards: devices that a member's batch is divided among.
            local_shards: those whose parts are made here, the others by other processes; None
                for all.
            dtype: of features and targets.
            platform: see `place_shapes`.
        """
        orders = [order for _, order in members]
        self.steps_per_epoch, self.total_steps = orders[0].steps_per_epoch, orders[0].total_steps
        if any(order.total_steps != self.total_steps for order in orders):
            raise ValueError("the members of a population have different numbers of steps")
        if not stacked and len(members) * shards > 1:
            raise ValueError("batches of several members or shards have to be stacked")
        self._members, self._stacked, self._shards, self._dtype = members, stacked, shards, dtype
        self._local = range(shards) if local_shards is None else local_shards
        self._sizes = [np.vstack([graph_sizes(data.graphs), _NO_CRYSTAL]) for data, _ in members]
        rows = [self._divide(epoch)[1] for epoch in range(orders[0].epochs)]
        crystals = -(-orders[0].batch_size // shards)
        self.shapes = place_shapes(np.concatenate(rows), crystals, max_shapes, platform)
        self.work = relative_work(self.shapes, np.concatenate(rows))

    def from_step(self, step: int) -> Iterator[CrystalBatch]:
        """Yields the batches from a step to the end of the run."""
        while step < self.total_steps:
            epoch, position = divmod(step, self.steps_per_epoch)
            orders = [order.epoch(epoch) for _, order in self._members]
            shards, rows = self._divide(epoch)
            for row in range(position, self.steps_per_epoch):
                shape = smallest_shape(self.shapes, rows[row])
                parts = [
                    data.batch(
                        order[row][(shard[row] == i) & (order[row] >= 0)], shape, self._dtype
                    )
                    for (data, _), order, shard in zip(self._members, orders, shards, strict=True)
                    for i in self._local
                ]
                yield jax.tree.map(_stack, *parts) if self._stacked else parts[0]
            step += self.steps_per_epoch - position

    def _divide(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the shards of each member's crystals, and the rows that each step needs.

        Those are the rows of a step's largest part, [steps, 3].
        """
        shards, needed = [], np.zeros((self.steps_per_epoch, 3), np.int64)
        for own, (_, order) in zip(self._sizes, self._members, strict=True):
            sizes = own[order.epoch(epoch)]
            shards.append(divide(sizes, self._shards))
            rows = shard_rows(sizes, shards[-1], self._shards)
            np.maximum(needed, rows.max(axis=1), out=needed)
        return shards, needed


def share_of_real_work(data: Dataset, order: Order, shards: int) -> float:
    """Returns how much of the work of devices that share batches is not padding."""
    sizes = np.vstack([graph_sizes(data.graphs), _NO_CRYSTAL])
    return real_share(sizes[order.epoch(0)], shards)


def one_epoch(data: Dataset, batch_size: int, drop_last: bool = False) -> Iterator[CrystalBatch]:
    """Yields each crystal once, in batches of one shape and of a random composition.

    Args:
        data: the crystals.
        batch_size: of all batches but the last.
        drop_last: leave out the last batch where it is smaller, and not the only one.
    """
    crystals = len(data.graphs)
    drops = drop_last and crystals > batch_size
    order = Order(crystals, batch_size, epochs=1, seed=0, drop_last=drops)
    return TrainingBatches([(data, order)], max_shapes=1, stacked=False).from_step(0)


def _stack(*leaves: np.ndarray) -> np.ndarray:
    return np.stack(leaves)
