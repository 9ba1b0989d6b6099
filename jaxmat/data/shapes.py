"""Fixed shapes for batches: few, and with little padding."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from jaxmat.batch import Shape
from jaxmat.crystals.graph import CrystalGraph, sizes_of
from jaxmat.data.store import GraphStore

# Work of one site, bond and angle relative to each other: matrix products of a forward pass at
# width 256 (4,241,408 · sites + 3,188,736 · bonds + 562,176 · angles).
_WORK = np.array([7.5, 5.7, 1.0])
# Padding edges need a site, and padding angles a bond, to lead to.
_PADDING = np.array([1, 1, 0])
# Rows are rounded up to a multiple of this, which vector units like.
_ROW_MULTIPLE = 16
# Work of a batch where its size is free: 64 small crystals. Larger ones are no faster on a CPU.
_BATCH_WORK = 20_000
# A shape that is there already may cost this much more work than the smallest one that will do;
# a new one that joins others is made this much larger than needed, so that it serves longer.
_REUSE, _SLACK = 1.25, 1.1
# Of compiling a shape, as long as ALIGNN takes for 25 steps of 64 small crystals on a CPU; the bond
# network, whose steps are faster, takes twice as long to compile. On an H100 compiling takes as
# long as about 10,000 such steps: of the bond network, and of ALIGNN with JAX's default options.
_COMPILING_WORK, _COMPILING_WORK_OF_ACCELERATORS = 5e5, 2e8
# Of all ladders that cost at most this share more than the best, the shortest is taken: each shape
# takes tens of megabytes to keep.
_TOLERATED = 0.01
# Batches are told apart into this many sizes before the rungs are placed.
_SIZES_TOLD_APART = 256


def graph_sizes(graphs: Sequence[CrystalGraph]) -> np.ndarray:
    """Returns sites, bonds and angles of each graph, [graphs, 3]."""
    if isinstance(graphs, GraphStore):  # which knows without reading them
        return graphs.sizes
    return sizes_of(graphs)


def place_shapes(rows: np.ndarray, crystals: int, most: int, platform: str = "cpu") -> list[Shape]:
    """Returns at most `most` shapes that hold all batches with little work on padding.

    Batches sorted by work are cut into contiguous groups, each padded to its greatest rows; where
    to cut for the least work is found by dynamic programming. A shape has to save more work than
    compiling it costs, so a short run has few, and there are no more than needed to come within
    1 % of the least cost.

    Args:
        rows: sites, bonds and angles of each batch of the run, [batches, 3].
        crystals: crystals of a batch.
        most: number of shapes at most.
        platform: what the program runs on, as JAX names it; "cpu" compiles fast and steps slowly.
    """
    rows = rows[np.argsort(rows @ _WORK, kind="stable")]
    groups = np.array_split(rows, min(len(rows), _SIZES_TOLD_APART))
    count = np.cumsum([0] + [len(group) for group in groups])
    greatest = np.array([group.max(axis=0) for group in groups])
    n = len(groups)
    # work[i, j]: groups i..j padded to one shape.
    work = np.full((n, n), np.inf)
    for i in range(n):
        padded = np.maximum.accumulate(greatest[i:], axis=0) @ _WORK
        work[i, i:] = padded * (count[i + 1 :] - count[i])
    best, cuts = [work[0]], []
    for _ in range(min(most, n) - 1):
        # Row 0: no cut more; row i: the last shape begins at group i.
        options = np.vstack([best[-1], best[-1][:-1, None] + work[1:]])
        cuts.append(np.argmin(options, axis=0))
        best.append(options.min(axis=0))
    total = np.array([least[-1] for least in best])
    compiling = _COMPILING_WORK if platform == "cpu" else _COMPILING_WORK_OF_ACCELERATORS
    cost = total + compiling * np.arange(1, len(total) + 1)
    enough = int(np.argmax(cost <= (1 + _TOLERATED) * cost.min()))
    shapes, end = [], n
    for cut in reversed(cuts[:enough]):
        start = int(cut[end - 1])
        if start:
            shapes.append(_training_shape(greatest[start:end].max(axis=0), crystals))
            end = start
    shapes.append(_training_shape(greatest[:end].max(axis=0), crystals))
    return list(dict.fromkeys(reversed(shapes)))  # rounding up has made some of them equal


def relative_work(shapes: Sequence[Shape], rows: np.ndarray) -> dict[Shape, float]:
    """Returns the work of a batch of each shape relative to the mean over batches.

    Args:
        shapes: smallest first.
        rows: sites, bonds and angles of each batch, [batches, 3].
    """
    work = np.array([shape[1:] for shape in shapes]) @ _WORK
    of_batch = np.full(len(rows), work[-1])
    for shape, its_work in zip(reversed(shapes), work[::-1], strict=True):
        of_batch[(rows + _PADDING <= shape[1:]).all(axis=1)] = its_work  # the smallest comes last
    return dict(zip(shapes, (work / of_batch.mean()).tolist(), strict=True))


def smallest_shape(shapes: Sequence[Shape], rows: np.ndarray) -> Shape:
    """Returns the first shape with room for these sites, bonds and angles and their padding.

    Raises:
        ValueError: there is none.
    """
    for shape in shapes:
        if (rows + _PADDING <= shape[1:]).all():
            return shape
    raise ValueError(f"no shape among {list(shapes)} has room for {rows} rows")


def divide(sizes: np.ndarray, shards: int) -> np.ndarray:
    """Returns which shard each crystal of a batch goes to, so that all have about equal work.

    Crystals, the most work first, each go to the shard with the least work so far, of those that
    have not their share of the crystals yet.

    Args:
        sizes: sites, bonds and angles of the crystals of batches, [batches, crystals, 3].
        shards: number of shards.

    Returns:
        [batches, crystals].
    """
    work = sizes @ _WORK
    result = np.zeros(work.shape, int)
    if shards == 1:
        return result
    batches, crystals = work.shape
    share = -(-crystals // shards)
    load, number = np.zeros((batches, shards)), np.zeros((batches, shards), int)
    each = np.arange(batches)
    for crystal in np.argsort(-work, axis=1, kind="stable").T:
        shard = np.argmin(np.where(number < share, load, np.inf), axis=1)
        load[each, shard] += work[each, crystal]
        number[each, shard] += 1
        result[each, crystal] = shard
    return result


def real_share(sizes: np.ndarray, shards: int) -> float:
    """Returns how much of the work of shards is not padding to the largest of their batch.

    Args:
        sizes: see `divide`.
        shards: number of shards.
    """
    rows = shard_rows(sizes, divide(sizes, shards), shards)
    return float((rows @ _WORK).sum() / (shards * (rows.max(axis=1) @ _WORK).sum()))


def shard_rows(sizes: np.ndarray, shard: np.ndarray, shards: int) -> np.ndarray:
    """Returns sites, bonds and angles of each shard of batches, [batches, shards, 3].

    Args:
        sizes: see `divide`.
        shard: that of each crystal, [batches, crystals].
        shards: number of shards.
    """
    return np.stack(
        [np.sum(sizes, axis=1, where=(shard == i)[..., None]) for i in range(shards)], axis=1
    )


def prediction_batches(sizes: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, Shape]]:
    """Returns the crystals of each batch and its shape, where order and number are free.

    Crystals, the most work first, each go to the batch with the least work so far; all batches
    have one shape.

    Args:
        sizes: sites, bonds and angles of each crystal, [crystals, 3].
        batch_size: crystals of a batch on average.
    """
    work = sizes @ _WORK
    # A batch of the largest crystal alone bounds what equal batches can be.
    batches = max(1, int(min(-(-len(sizes) // batch_size), work.sum() // work.max())))
    loads = [(0.0, batch) for batch in range(batches)]
    members: list[list[int]] = [[] for _ in range(batches)]
    for i in np.argsort(-work, kind="stable"):
        load, batch = heapq.heappop(loads)
        members[batch].append(int(i))
        heapq.heappush(loads, (load + work[i], batch))
    rows = np.array([sizes[member].sum(axis=0) for member in members])
    rooms = _round_up(rows.max(axis=0) + _PADDING, _ROW_MULTIPLE)
    shape = Shape(max(len(member) for member in members) + 1, *rooms)
    return [(np.array(member), shape) for member in members]


def equal_batches(sizes: np.ndarray, shapes: Sequence[Shape]) -> tuple[list[np.ndarray], Shape]:
    """Returns the crystals of batches of about equal work, and their shape.

    Called for one part of the data after another, it asks for few shapes: the work of a batch is
    the same however large the crystals, and a shape is used again where it is not much too large.

    Args:
        sizes: sites, bonds and angles of each crystal, [crystals, 3].
        shapes: those used before.
    """
    mean_work = float((sizes @ _WORK).mean())
    batches = prediction_batches(sizes, max(1, round(_BATCH_WORK / mean_work)))
    members, needed = [member for member, _ in batches], batches[0][1]
    most = _REUSE * (np.array(needed[1:]) @ _WORK)
    for shape in shapes:
        roomy = all(room >= rows for room, rows in zip(shape, needed, strict=True))
        if roomy and np.array(shape[1:]) @ _WORK <= most:
            return members, shape
    rows = np.array(needed[1:]) * (_SLACK if shapes else 1.0)
    # Rows for crystals cost next to nothing.
    return members, Shape(-(-needed.crystals // 64) * 64, *_round_up(rows, _ROW_MULTIPLE))


def _training_shape(rows: np.ndarray, crystals: int) -> Shape:
    """Returns the shape with room for these rows and for one site and one bond of padding.

    Gradients are sums over rows. XLA sums many rows on accelerators in as many equal parts as their
    square root, if they have a divisor between the root and half of it, and has to pad them if not;
    so rows are rounded up to the largest power of two that is at most the root.
    """
    rows = rows + _PADDING
    multiples = 2 ** np.floor(np.log2(np.maximum(np.sqrt(rows), _ROW_MULTIPLE))).astype(int)
    return Shape(crystals + 1, *_round_up(rows, multiples))


def _round_up(rows: np.ndarray, multiples: np.ndarray | int) -> list[int]:
    rounded: list[int] = (np.ceil(rows / multiples) * multiples).astype(int).tolist()
    return rounded
