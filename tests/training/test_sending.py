"""A batch that is sent as one array is, taken apart again, the batch bit for bit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.training.sending import of_sent, pack, send, send_packed, unpack


def batch(dtype: type, angles: int = 0, value: float = 0.1) -> CrystalBatch:
    none = np.zeros(0, np.int32)
    atom = CrystalGraph(np.full(1, 79, np.int32), np.ones(1, np.int32), *[none] * 8)
    return batch_crystals([atom], np.array([[value, np.nan]]), Shape(3, 16, 16, angles), dtype)


def assert_same(found: CrystalBatch, wanted: CrystalBatch) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(np.asarray(one), other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("angles", [0, 16])
def test_what_is_packed_comes_out(dtype, angles):
    one, other = batch(dtype, angles), batch(dtype, angles, value=1e-30)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), one, other)
    with jax.enable_x64(dtype == np.float64):
        assert_same(jax.jit(unpack)(send_packed(one)), one)
        assert_same(jax.jit(unpack)(pack(stacked, stacked=True)), stacked)
        assert_same(jax.jit(jax.vmap(unpack))(pack(stacked, stacked=True)), stacked)


def test_the_processor_of_this_host_reads_a_batch_where_it_is():
    one = batch(np.float32)
    assert send(one) is one
    target = jax.jit(of_sent(lambda factor, batch: factor * batch.target))
    np.testing.assert_array_equal(target(2.0, one), target(2.0, send_packed(one)))


def test_one_array_is_sent_and_its_shape_is_known():
    packed = pack(batch(np.float32))
    assert len(jax.tree.leaves(packed)) == 1
    assert packed.shape == batch(np.float32).shape == Shape(3, 16, 16, 0)


def test_batches_of_one_shape_share_a_program():
    programs = []

    @jax.jit
    def target(packed):
        programs.append(packed.shape)
        return unpack(packed).target

    values = [float(target(pack(batch(np.float32, value=value)))[0, 0]) for value in (1.0, 2.0)]
    target(pack(batch(np.float32, angles=16)))
    assert values == [1.0, 2.0] and len(programs) == 2
