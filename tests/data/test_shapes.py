from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmat.batch import Shape
from jaxmat.data.shapes import (
    divide,
    equal_batches,
    place_shapes,
    prediction_batches,
    real_share,
    shard_rows,
    smallest_shape,
)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    most=st.integers(1, 4),
    times=st.sampled_from([1, 30, 1000]),
)
@settings(max_examples=50)
def test_shapes_are_few_and_cost_as_little_as_any(sizes, most, times):
    """Sizes on a line: the best ladder of a length is a subset of the sizes, the largest in it.

    A shape costs as much as half a million rows of the lightest kind.
    """
    sizes = sizes * times
    rows = 16 * np.array(sizes)[:, None] - np.array([1, 1, 0])
    distinct = sorted(set(sizes))

    def work(ladder) -> float:
        rungs = np.sort(ladder)
        chosen = rungs[np.searchsorted(rungs, sizes)]
        return float(((16 * chosen[:, None] - [1, 1, 0]) @ [7.5, 5.7, 1.0]).sum())

    least = [
        min(work([*chosen, distinct[-1]]) for chosen in combinations(distinct[:-1], others))
        for others in range(min(most, len(distinct)))
    ]
    shapes = place_shapes(rows, crystals=4, most=most)
    assert all(shape == (5, shape.angles, shape.angles, shape.angles) for shape in shapes)
    costs = [w + 5e5 * (i + 1) for i, w in enumerate(least)]
    assert len(shapes) == 1 + next(i for i, cost in enumerate(costs) if cost <= 1.01 * min(costs))
    assert work([shape.angles // 16 for shape in shapes]) == pytest.approx(least[len(shapes) - 1])


def test_shapes_hold_all_batches_whatever_their_proportions():
    rows = np.random.default_rng(0).integers(1, 200, size=(7000, 3))
    assert len(place_shapes(rows[:100], crystals=4, most=6)) == 1  # a second would not pay
    shapes = place_shapes(rows, crystals=4, most=6)
    assert 1 < len(shapes) <= 6
    assert len(place_shapes(rows, crystals=4, most=6, platform="gpu")) == 1  # compiles for long
    for batch in rows:
        shape = smallest_shape(shapes, batch)
        assert shape.crystals == 5
        assert (batch + [1, 1, 0] <= shape[1:]).all()


def test_no_shape_has_room():
    with pytest.raises(ValueError, match="has room"):
        smallest_shape([Shape(5, 8, 8, 8)], np.array([8, 7, 8]))


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_predictions_cover_each_crystal_once(batch_size):
    scale = np.random.default_rng(0).lognormal(2, 1, size=23).astype(int) + 1
    sizes = scale[:, None] * [1, 3, 10]
    batches = prediction_batches(sizes, batch_size)
    assert sorted(np.concatenate([members for members, _ in batches])) == list(range(23))
    assert len({shape for _, shape in batches}) == 1
    for members, shape in batches:
        assert len(members) < shape.crystals
        assert (sizes[members].sum(axis=0) + [1, 1, 0] <= shape[1:]).all()


def test_one_huge_crystal_does_not_pad_all_batches_to_its_size():
    sizes = np.array([[1, 10, 100]] * 40 + [[10, 100, 1000]])
    batches = prediction_batches(sizes, batch_size=1)
    total = sum(shape.angles for _, shape in batches)
    assert total < 1.5 * sizes[:, 2].sum()


def test_parts_of_the_data_share_few_shapes():
    """A large input comes in parts; each new shape costs a compilation."""
    rng = np.random.default_rng(0)
    shapes: list[Shape] = []
    for scale in (1, 1, 2, 8, 1, 4, 2, 1, 16, 8, 1, 2, 4, 1):
        sites = scale * rng.lognormal(1, 0.5, size=500)
        sizes = np.ceil(sites[:, None] * rng.normal([1, 8, 90], [0.1, 1, 10], size=(500, 3)))
        sizes = np.maximum(sizes, 1).astype(int)
        members, shape = equal_batches(sizes, shapes)
        assert sorted(np.concatenate(members)) == list(range(500))
        for batch in members:
            assert len(batch) < shape.crystals
            assert (sizes[batch].sum(axis=0) + [1, 1, 0] <= shape[1:]).all()
        assert len(members) * shape.angles < 1.4 * sizes[:, 2].sum()
        if shape not in shapes:
            shapes.append(shape)
    assert len(shapes) <= 5


def test_a_shape_that_is_much_too_large_is_not_used_again():
    sizes = np.array([[2, 16, 180]] * 100)
    _, needed = equal_batches(sizes, [])
    doubled = Shape(needed.crystals, *(2 * rows for rows in needed[1:]))
    members, shape = equal_batches(sizes, [doubled, needed])
    assert shape == needed
    _, shape = equal_batches(sizes, [doubled])
    assert shape.angles < doubled.angles


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_shards_of_a_batch_have_about_equal_work(shards):
    """No shard has more crystals than its share; dealing them out in turns does worse."""
    rng = np.random.default_rng(0)
    sizes = (rng.lognormal(3, 1, size=(50, 64, 1)) * [1, 5, 50]).astype(int)
    shard = divide(sizes, shards)
    rows = shard_rows(sizes, shard, shards)
    np.testing.assert_array_equal(rows.sum(axis=1), sizes.sum(axis=1))
    numbers = np.stack([(shard == i).sum(axis=1) for i in range(shards)])
    assert numbers.sum() == 50 * 64 and numbers.max() == -(-64 // shards)
    in_turns = shard_rows(sizes, np.tile(np.arange(64) % shards, (50, 1)), shards)
    share, by_turns = (
        float(each.sum() / (shards * each.max(axis=1).sum())) for each in (rows, in_turns)
    )
    assert real_share(sizes, shards) == pytest.approx(share, rel=0.01)
    assert share > 0.95 * (1 if shards < 8 else 0.9)
    assert share >= by_turns and (shards == 1 or share > by_turns + 0.1)


def test_shards_without_a_crystal_are_padding_alone():
    sizes = np.array([[[1, 5, 50], [1, 5, 50], [0, 0, 0], [0, 0, 0]]])
    assert [real_share(sizes, n) for n in (1, 2, 4)] == [1, 1, 0.5]


@pytest.mark.parametrize("rows", [1, 200, 1130, 4700, 12_400, 53_000, 1_000_003])
def test_rows_can_be_summed_in_about_as_many_parts_as_each_has(rows):
    """A divisor between half the root and the root; little is padded for it."""
    (shape,) = place_shapes(np.full((1, 3), rows), crystals=1, most=1)
    for padded in shape[1:]:
        root = int(padded**0.5)
        assert any(padded % parts == 0 for parts in range(-(-root // 2), root + 1))
        assert rows <= padded <= rows + 1 + max(16, root)
