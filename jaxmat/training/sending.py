"""Batches on their way to a device: one array of words in place of some twenty arrays.

Each array costs time of its own, once for each device, before a byte of it is sent, and again when
a program is called with it. On the device the words are taken apart where they are used. A program
on the processor of this host reads the arrays where they are; to pack them would cost more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmat.batch import Array, CrystalBatch, Shape

T = TypeVar("T")
R = TypeVar("R")


class Layout(NamedTuple):
    """Where the arrays of a batch are among its words.

    Attributes:
        tree: what they make up.
        leaves: shape and dtype of each.
        shape: of the batch.
    """

    tree: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[tuple[int, ...], np.dtype], ...]
    shape: Shape


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedBatch:
    """A batch as one array.

    Attributes:
        words: uint32 [words]; a batch that is stacked has a leading axis.
        layout: of the words.
    """

    words: Array
    layout: Layout = field(metadata={"static": True})

    @property
    def shape(self) -> Shape:
        """That of the batch."""
        return self.layout.shape


# A batch as programs get it.
Sent = CrystalBatch | PackedBatch


def pack(batch: CrystalBatch, *, stacked: bool = False) -> PackedBatch:
    """Returns a batch of numpy arrays as words.

    Args:
        batch: its values have four or eight bytes.
        stacked: whether it has a leading axis.
    """
    leaves, tree = jax.tree.flatten(batch)
    axes = 1 if stacked else 0
    parts = [_words(leaf, leaf.shape[:axes]) for leaf in leaves]
    about = tuple((leaf.shape[axes:], leaf.dtype) for leaf in leaves)
    return PackedBatch(np.concatenate(parts, axis=-1), Layout(tree, about, batch.shape))


def send(batch: CrystalBatch) -> Sent:
    """Brings a batch to the first device, without waiting for it; nowhere if that is this host."""
    return batch if jax.default_backend() == "cpu" else send_packed(batch)


def send_packed(batch: CrystalBatch) -> PackedBatch:
    """Brings a batch to the first device as one array, whatever that device is."""
    return jax.device_put(pack(batch))


def unpack(packed: PackedBatch) -> CrystalBatch:
    """Returns the batch of words; to be called in compiled programs."""
    words, layout = packed.words, packed.layout
    counts = [prod(shape) * dtype.itemsize // 4 for shape, dtype in layout.leaves]
    parts = jnp.split(words, np.cumsum(counts)[:-1], axis=-1)
    leaves = [
        _values(part, shape, dtype)
        for part, (shape, dtype) in zip(parts, layout.leaves, strict=True)
    ]
    batch: CrystalBatch = jax.tree.unflatten(layout.tree, leaves)
    return batch


def of_sent(function: Callable[[T, CrystalBatch], R]) -> Callable[[T, Sent], R]:
    """Returns a function of something and a batch for batches as they are sent."""

    def of_either(first: T, batch: Sent) -> R:
        return function(first, unpack(batch) if isinstance(batch, PackedBatch) else batch)

    return of_either


def _words(leaf: np.ndarray, stack: tuple[int, ...]) -> np.ndarray:
    values = np.ascontiguousarray(leaf).reshape(*stack, prod(leaf.shape[len(stack) :]))
    return values.view(np.uint32)


def _values(words: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    stack = words.shape[:-1]
    if dtype.itemsize == 8:
        words = words.reshape(*stack, -1, 2)
    return jax.lax.bitcast_convert_type(words, dtype).reshape(*stack, *shape)
