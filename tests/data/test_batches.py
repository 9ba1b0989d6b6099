from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmat.batch import CrystalBatch, Shape
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.batches import (
    Dataset,
    TrainingBatches,
    equal_batches,
    graph_sizes,
    place_shapes,
    prediction_batches,
    smallest_shape,
)
from jaxmat.errors import UserError


def crystal(sites: int, bonds: int, angles: int) -> CrystalGraph:
    """A crystal of which only the sizes matter."""
    site, bond, angle = (np.ones(rows, np.int32) for rows in (sites, bonds, angles))
    return CrystalGraph(
        *(site, site, 0 * bond, 0 * bond, 1.0 * bond, bond),
        *(0 * angle, 0 * angle, 0.0 * angle, angle),
    )


def make_data(crystals: int) -> Dataset:
    """Crystals of very different sizes; the target of each is its number."""
    sizes = np.random.default_rng(0).lognormal(2, 1, size=crystals).astype(int) + 1
    graphs = [crystal(size, 3 * size, 10 * size) for size in sizes]
    return Dataset(graphs, np.arange(crystals, dtype=float)[:, None])


def plan(data: Dataset, **changes) -> TrainingBatches:
    options = {"batch_size": 4, "epochs": 3, "seed": 7, "drop_last": True, "max_shapes": 3}
    return TrainingBatches(data, **(options | changes))


def contents(batch: CrystalBatch) -> list[int]:
    """Which crystals are in a batch, in order."""
    return batch.target[batch.crystal_mask > 0, 0].astype(int).tolist()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_data(23)


def test_order_is_a_function_of_seed_and_step(data):
    runs = [[contents(b) for b in plan(data, seed=seed).from_step(0)] for seed in (7, 7, 8)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    epochs = [runs[0][:5], runs[0][5:10], runs[0][10:]]
    assert epochs[0] != epochs[1] != epochs[2]


def test_order_does_not_depend_on_the_length_of_the_run(data):
    long = [contents(batch) for batch in plan(data, epochs=5).from_step(0)]
    short = [contents(batch) for batch in plan(data, epochs=2).from_step(0)]
    assert long[: len(short)] == short


@pytest.mark.parametrize("drop_last", [True, False])
def test_starting_at_a_step_is_skipping_those_before(drop_last, data):
    batches = plan(data, drop_last=drop_last)
    whole = list(batches.from_step(0))
    assert len(whole) == batches.total_steps
    for step in (1, batches.steps_per_epoch, batches.steps_per_epoch + 2, batches.total_steps):
        rest = list(batches.from_step(step))
        assert len(rest) == len(whole) - step
        for one, other in zip(rest, whole[step:], strict=True):
            assert contents(one) == contents(other)
            assert one.crystals.nodes["count"].shape == other.crystals.nodes["count"].shape


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_has_each_crystal_once_in_batches_of_exact_size(drop_last, data):
    batches = plan(data, drop_last=drop_last)
    assert batches.steps_per_epoch == (5 if drop_last else 6)
    steps = batches.from_step(0)
    for _ in range(3):
        epoch = [contents(batch) for batch in islice(steps, batches.steps_per_epoch)]
        assert [len(batch) for batch in epoch] == [4] * 5 + [3] * (not drop_last)
        seen = sum(epoch, [])
        assert len(seen) == len(set(seen))
        assert set(seen) <= set(range(23))
        assert drop_last or set(seen) == set(range(23))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_every_batch_has_one_of_few_shapes(most, data):
    """That it fits is what batch_crystals checks."""
    batches = plan(data, max_shapes=most, epochs=20)
    assert 1 <= len(batches.shapes) <= most
    found = {
        Shape(
            len(b.crystal_mask),
            *map(len, (b.crystals.nodes["count"], b.crystals.senders, b.angles.senders)),
        )
        for b in batches.from_step(0)
    }
    assert found <= set(batches.shapes)
    assert all(rows % 8 == 0 for shape in found for rows in shape[1:])


def test_a_batch_size_beyond_the_data(data):
    assert [len(contents(b)) for b in plan(data, batch_size=100, drop_last=False).from_step(0)] == [
        23
    ] * 3
    with pytest.raises(UserError, match="23 training crystals make no batch of 100"):
        plan(data, batch_size=100)
    with pytest.raises(UserError, match="0 training crystals"):
        plan(Dataset([], np.zeros((0, 1))), drop_last=False)


def padded_rows(shapes: list[Shape], rows: np.ndarray) -> int:
    """Rows after padding, for batches whose sites, bonds and angles are equal in number."""
    return sum(smallest_shape(shapes, batch).angles for batch in rows)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    most=st.integers(1, 4),
)
@settings(max_examples=50)
def test_shapes_waste_as_little_as_any(sizes, most):
    """Sizes on a line: the best ladder is a subset of the sizes that holds the largest."""
    rows = 8 * np.array(sizes)[:, None] - np.array([1, 1, 0])
    shapes = place_shapes(rows, crystals=4, most=most)
    assert len(shapes) <= most
    distinct = sorted(set(sizes))
    least = min(
        padded_rows([Shape(5, 8 * s, 8 * s, 8 * s) for s in (*chosen, distinct[-1])], rows)
        for count in range(min(most, len(distinct)))
        for chosen in combinations(distinct[:-1], count)
    )
    assert padded_rows(shapes, rows) == least


def test_shapes_hold_all_batches_whatever_their_proportions():
    rows = np.random.default_rng(0).integers(1, 200, size=(700, 3))
    shapes = place_shapes(rows, crystals=4, most=6)
    assert len(shapes) == 6
    for batch in rows:
        shape = smallest_shape(shapes, batch)
        assert shape.crystals == 5
        assert (batch + [1, 1, 0] <= shape[1:]).all()


def test_no_shape_has_room():
    with pytest.raises(ValueError, match="has room"):
        smallest_shape([Shape(5, 8, 8, 8)], np.array([8, 7, 8]))


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_predictions_cover_each_crystal_once(batch_size, data):
    sizes = graph_sizes(data.graphs)
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
