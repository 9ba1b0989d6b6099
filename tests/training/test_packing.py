"""Packed variables are the variables, in another order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmat.experiments.defaults import training
from jaxmat.experiments.recipe import Recipe
from jaxmat.models.trunk import Groups
from jaxmat.training.losses import masked_loss, squared
from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer
from jaxmat.training.packing import Packing
from jaxmat.training.schedules import onecycle, onecycle_beta1
from jaxmat.training.state import TrainState, create_state
from jaxmat.training.step import in_two_parts, make_train_step
from jaxmat.transfer.strategies import Strategy, rate_factors, trainable_mask

STEPS = 6
GROUPS = Groups(embedding=("embedding/linear",), readout=("embedding/norm",))
STRATEGIES = {
    "all train": Strategy(),
    "frozen": Strategy(frozen=("trunk",)),
    "factors": Strategy(rate_factors={"embedding": 0.5, "trunk": 0.1}),
    "pulled": Strategy(source_penalty=0.5, frozen=("embedding",)),
}


def assert_same_bits(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def source(variables):
    return {"trunk": jax.tree.map(lambda leaf: leaf + 1.0, variables["params"]["trunk"])}


@pytest.fixture(params=STRATEGIES)
def recipe(request, variables, source) -> Recipe:
    config = training()
    config.update(loss="mse", weight_decay=0.1, schedule="onecycle")
    return Recipe(config, STRATEGIES[request.param], variables, GROUPS, STEPS, source)


def optimizer_of_trees(recipe: Recipe, strategy: Strategy, params, source):
    return make_optimizer(
        onecycle(1e-2, STEPS),
        onecycle_beta1(STEPS),
        weight_decay=0.1,
        decay_mask=kernel_decay_mask,
        trainable=trainable_mask(params, strategy, GROUPS),
        rate_factors=rate_factors(params, strategy, GROUPS),
        source=source,
        source_penalty=strategy.source_penalty,
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_of_vectors_is_the_step_of_trees(name, network, variables, source, make_batch):
    """Masks, factors, penalties and frozen leaves, with and without the averages."""
    strategy, config = STRATEGIES[name], training()
    config.update(loss="mse", weight_decay=0.1, schedule="onecycle")
    with jax.enable_x64(True):
        variables, source = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), (variables, source)
        )
        recipe = Recipe(config, strategy, variables, GROUPS, STEPS, source)
        constants = recipe.constants(0.0, source)._replace(learning_rate=np.float64(1e-2))
        packed = recipe.create_state(constants, variables)
        member = recipe.step(network)
        step = jax.jit(
            in_two_parts(
                member.differentiate, lambda state, found: member.update(constants, state, found)
            )
        )
        optimizer = optimizer_of_trees(recipe, strategy, variables["params"], source)
        state = create_state(variables, optimizer, ema=True)
        expected = jax.jit(
            make_train_step(
                network,
                optimizer,
                lambda prediction, batch: masked_loss(
                    prediction, batch, elementwise=squared, average="properties"
                ),
                trainable=trainable_mask(variables["params"], strategy, GROUPS),
                ema_decay=config.ema_decay,
            )
        )
        assert_same_bits(recipe.packing.unpack(packed), state)
        for number in range(STEPS):
            batch = make_batch(number)
            packed, metrics = step(packed, batch)
            state, theirs = expected(state, batch)
            np.testing.assert_allclose(metrics["grad_norm"], theirs["grad_norm"], rtol=1e-9)
    found = recipe.packing.unpack(packed)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_packing_and_back_gives_the_same_bits(recipe, variables, source):
    state = recipe.create_state(recipe.constants(1e-2, source), variables)
    on_host = jax.device_get(state)
    tree = recipe.packing.unpack(on_host)
    assert tree.params.keys() == variables["params"].keys()
    assert_same_bits(tree.params, variables["params"])
    assert_same_bits(recipe.packing.pack(tree), on_host)


def test_members_are_packed_each_for_itself(recipe, variables, source):
    constants = recipe.constants(1e-2, source)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables)
    states = jax.device_get(
        jax.vmap(recipe.create_state, in_axes=(None, 0), axis_size=2)(constants, both)
    )
    trees = recipe.packing.unpack(states)
    assert_same_bits(recipe.packing.pack(trees), states)
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], both)
        alone = recipe.packing.unpack(jax.device_get(recipe.create_state(constants, one)))
        member: TrainState = jax.tree.map(lambda leaf, i=i: leaf[i], trees)
        assert_same_bits(member, alone)


def test_frozen_leaves_have_no_moments(variables, source):
    recipe = Recipe(training(), STRATEGIES["frozen"], variables, GROUPS, STEPS, source)
    state = recipe.create_state(recipe.constants(1e-2, source), variables)
    trained = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]["heads_toy"]))
    numbers = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(numbers) == 2 * trained


def test_leaves_of_a_kind_share_a_vector_and_those_missing_are_left_out():
    tree = {"a": {"x": np.arange(6.0).reshape(2, 3), "y": np.ones(1)}, "b": {"x": np.zeros(4)}}
    packing = Packing(tree, lambda name: name.endswith("x"))
    assert [list(packing.pack(tree)[name]) for name in packing.kinds] == [
        [0, 1, 2, 3, 4, 5, 0, 0, 0, 0],
        [1],
    ]
    assert list(packing.kinds.values()) == [True, False]
    assert list(packing.pack({"a": tree["a"]})) == ["1"]
    assert_same_bits(packing.unpack(packing.pack(tree)), tree)
