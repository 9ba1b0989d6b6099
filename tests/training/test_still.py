from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmat.models.layers import Embedding
from jaxmat.training.still import still

ALL = ("trunk/embedding",)


@pytest.fixture(scope="module")
def moved(network, variables, make_batch):
    """Variables whose running statistics are those of no batch."""
    shifted = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    return variables | {"batch_stats": shifted}


def apply(network, variables, batch, patterns=()):
    with still(patterns):
        return network.apply(variables, batch, train=True, mutable=["batch_stats"])


def leaves_equal(one, other) -> list[bool]:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return [np.array_equal(a, b) for a, b in pairs]


def test_training_is_evaluation_and_changes_no_statistics(network, moved, make_batch):
    batch = make_batch(1)
    output, updated = jax.jit(lambda v: apply(network, v, batch, ALL))(moved)
    expected = jax.jit(lambda v: network.apply(v, batch, train=False))(moved)
    np.testing.assert_array_equal(output, expected)
    assert all(leaves_equal(updated["batch_stats"], moved["batch_stats"]))


@pytest.mark.parametrize("patterns", [(), ("embedding",), ("trunk/embedding/norm/mean",)])
def test_other_batch_norms_move_as_always(patterns, network, moved, make_batch):
    batch = make_batch(1)
    output, updated = apply(network, moved, batch, patterns)
    expected = network.apply(moved, batch, train=True, mutable=["batch_stats"])
    assert all(leaves_equal((output, updated), expected))
    assert not any(leaves_equal(updated["batch_stats"], moved["batch_stats"]))


def test_gradients_are_those_of_evaluation(network, moved, make_batch):
    batch = make_batch(1)

    def loss(params, run):
        return (run(moved | {"params": params}) ** 2).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    found = gradient(moved["params"], lambda v: apply(network, v, batch, ALL)[0])
    expected = gradient(moved["params"], lambda v: network.apply(v, batch, train=False))
    moving = gradient(moved["params"], lambda v: apply(network, v, batch)[0])
    assert all(leaves_equal(found, expected))
    # Statistics of the batch hide the bias before them; still ones do not.
    bias = [tree["trunk"]["embedding"]["linear"]["bias"] for tree in (found, moving)]
    assert np.abs(bias[0]).max() > 1e3 * np.abs(bias[1]).max()


def test_members_of_a_population_stay_still_each_with_its_own(network, moved, make_batch):
    members = [moved, jax.tree.map(lambda leaf: 1.5 * leaf, moved)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    batch = make_batch(1)
    output, updated = jax.vmap(lambda v: apply(network, v, batch, ALL))(stacked)
    assert all(leaves_equal(updated["batch_stats"], stacked["batch_stats"]))
    for row, member in zip(output, members, strict=True):
        expected = network.apply(member, batch, train=False)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_layers_that_are_computed_again_in_the_backward_pass_stay_still():
    layer = nn.remat(Embedding, static_argnums=(3,))(3, name="embedding")
    x, weight = np.arange(8.0, dtype=np.float32).reshape(4, 2), np.ones(4, np.float32)
    variables = layer.init(jax.random.key(0), x, weight, False)

    def loss(params, patterns):
        with still(patterns):
            output, updated = layer.apply(
                variables | {"params": params}, x, weight, True, mutable=["batch_stats"]
            )
        return output.sum(), updated["batch_stats"]

    for patterns, stays in (((), False), (("norm",), True)):
        _, statistics = jax.grad(loss, has_aux=True)(variables["params"], patterns)
        assert leaves_equal(statistics, variables["batch_stats"]) == [stays, stays]
