from __future__ import annotations

from itertools import islice

import jax
import numpy as np
import pytest

from jaxmat.batch import CrystalBatch, Shape
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.batches import Dataset, TrainingBatches, one_epoch
from jaxmat.data.order import Order
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


def order(data: Dataset, **changes) -> Order:
    options = {"batch_size": 4, "epochs": 3, "seed": 7, "drop_last": True}
    return Order(len(data.graphs), **(options | changes))


def plan(data: Dataset, max_shapes=3, **changes) -> TrainingBatches:
    return TrainingBatches([(data, order(data, **changes))], max_shapes=max_shapes, stacked=False)


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
    assert all(rows % 16 == 0 for shape in found for rows in shape[1:])


def test_a_batch_size_beyond_the_data(data):
    assert [len(contents(b)) for b in plan(data, batch_size=100, drop_last=False).from_step(0)] == [
        23
    ] * 3
    with pytest.raises(UserError, match="23 training crystals make no batch of 100"):
        plan(data, batch_size=100)
    with pytest.raises(UserError, match="0 training crystals"):
        plan(Dataset([], np.zeros((0, 1))), drop_last=False)


def parts(batch: CrystalBatch, number: int) -> list[CrystalBatch]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(number)]


def test_members_of_a_population_see_what_they_see_alone(data):
    other = Dataset(data.graphs[::-1], data.target + 100)
    members = [(data, order(data, seed=1)), (data, order(data, seed=2)), (other, order(other))]
    together = TrainingBatches(members, max_shapes=2, stacked=True)
    alone = [TrainingBatches([member], max_shapes=2, stacked=False) for member in members]
    assert together.total_steps == alone[0].total_steps
    for batch, *each in zip(
        together.from_step(3), *(batches.from_step(3) for batches in alone), strict=True
    ):
        assert [contents(part) for part in parts(batch, 3)] == [contents(one) for one in each]
    assert len(together.shapes) <= 2


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_shards_divide_each_batch(data, shards):
    """The last batch has three crystals: of eight devices five get none."""
    whole = plan(data, drop_last=False)
    divided = TrainingBatches(
        [(data, order(data, drop_last=False))], max_shapes=3, stacked=True, shards=shards
    )
    for one, several in zip(whole.from_step(0), divided.from_step(0), strict=True):
        each = [contents(part) for part in parts(several, shards)]
        assert sorted(sum(each, [])) == sorted(contents(one))
        assert max(map(len, each)) == -(-len(contents(one)) // shards)
    assert all(shape.crystals == 1 + -(-4 // shards) for shape in divided.shapes)


def test_a_process_makes_its_own_shards_alone(data):
    options = {"max_shapes": 3, "stacked": True, "shards": 4}
    members = [(data, order(data))]
    everything = TrainingBatches(members, **options)
    mine = TrainingBatches(members, **options, local_shards=[1, 2])
    assert mine.shapes == everything.shapes
    for whole, part in zip(everything.from_step(0), mine.from_step(0), strict=True):
        assert [contents(x) for x in parts(part, 2)] == [contents(x) for x in parts(whole, 4)][1:3]


def test_what_cannot_be_stacked_is_refused(data):
    with pytest.raises(ValueError, match="stacked"):
        TrainingBatches([(data, order(data))], max_shapes=1, stacked=False, shards=2)
    with pytest.raises(ValueError, match="numbers of steps"):
        members = [(data, order(data)), (data, order(data, epochs=1))]
        TrainingBatches(members, max_shapes=1, stacked=True)


def test_a_step_names_its_crystals(data):
    batches = list(plan(data, drop_last=False).from_step(0))
    for step, batch in enumerate(batches):
        assert order(data, drop_last=False).batch(step).tolist() == contents(batch)


def test_an_epoch_leaves_out_what_the_training_leaves_out(data):
    sizes = [len(contents(batch)) for batch in one_epoch(data, 4)]
    assert sizes[-1] < 4 and sum(sizes) == len(data.graphs)
    assert [len(contents(batch)) for batch in one_epoch(data, 4, drop_last=True)] == sizes[:-1]
    # But not the only one there is.
    assert len(list(one_epoch(data, 100, drop_last=True))) == 1
