from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmat.training.losses import absolute, masked_loss, squared
from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer
from jaxmat.training.state import averaged_variables, create_state
from jaxmat.training.step import make_predict_step, make_train_step


def leaf_pairs(one, other):
    return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def trees_equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def compiled_step(*args, **options):
    return jax.jit(make_train_step(*args, **options))


@pytest.fixture
def state(variables, optimizer):
    return create_state(variables, optimizer, ema=False)


def test_training_learns(network, optimizer, loss, state, make_batch):
    step = compiled_step(network, optimizer, loss)
    batch = make_batch(1, missing=0.0)
    losses = []
    for _ in range(100):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    assert state.step == 100
    assert losses[-1] < 0.3 * losses[0]
    assert metrics["crystals"] == 4


def test_metrics_and_statistics_are_those_before_the_update(
    network, optimizer, loss, state, make_batch
):
    batch = make_batch(1)
    after, metrics = compiled_step(network, optimizer, loss)(state, batch)
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def by_hand(params):
        prediction, updated = network.apply(
            variables | {"params": params}, batch, train=True, mutable=["batch_stats"]
        )
        numerators, denominators = loss(prediction, batch)
        return jnp.sum(numerators / denominators), updated["batch_stats"]

    differentiate = jax.jit(jax.value_and_grad(by_hand, has_aux=True))
    (value, batch_stats), gradient = differentiate(state.params)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
    for one, other in leaf_pairs(after.batch_stats, batch_stats):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_padding_changes_nothing(network, optimizer, loss, state, make_batch):
    step = compiled_step(network, optimizer, loss)
    (tight, tight_metrics), (loose, loose_metrics) = (
        step(state, make_batch(1, crystals=3, room=room)) for room in (3, 12)
    )
    for key in tight_metrics:
        np.testing.assert_allclose(tight_metrics[key], loose_metrics[key], rtol=1e-5)
    # Not the parameters: the bias before a batch norm has a gradient of rounding noise.
    for one, other in leaf_pairs(tight.batch_stats, loose.batch_stats):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_batch_without_labels_leaves_finite_parameters(
    network, optimizer, loss, state, make_batch
):
    after, metrics = compiled_step(network, optimizer, loss)(state, make_batch(1, missing=1.0))
    assert metrics["loss"] == metrics["grad_norm"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_donating_the_state_spares_the_variables_it_was_made_of(
    network, optimizer, loss, variables, make_batch
):
    state = create_state(variables, optimizer, ema=True)
    step = jax.jit(make_train_step(network, optimizer, loss, ema_decay=0.9), donate_argnums=0)
    step(state, make_batch(1))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("ema_decay", [0.999, 0.15])
def test_averages_follow_parameters_and_statistics(
    ema_decay, network, optimizer, loss, variables, make_batch
):
    state = create_state(variables, optimizer, ema=True)
    step = compiled_step(network, optimizer, loss, ema_decay=ema_decay)
    expected = {name: variables[name] for name in ("params", "batch_stats")}
    for number in range(4):
        state, _ = step(state, make_batch(number))
        decay = min(ema_decay, (1 + number) / (10 + number))
        live = {"params": state.params, "batch_stats": state.batch_stats}
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, live)
    averaged = averaged_variables(state)
    for one, other in leaf_pairs(averaged, expected):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert not trees_equal(averaged, live)


def test_without_averages_the_live_variables_predict(network, state, make_batch):
    variables = averaged_variables(state)
    assert trees_equal(variables, {"params": state.params, "batch_stats": state.batch_stats})
    batch = make_batch(2)
    prediction = make_predict_step(network)(variables, batch)
    np.testing.assert_array_equal(prediction, network.apply(variables, batch, train=False))


def test_frozen_leaves_stay_and_cost_no_gradient(network, loss, variables, make_batch):
    trainable = jax.tree_util.tree_map_with_path(
        lambda path, _: "heads_toy" in jax.tree_util.keystr(path), variables["params"]
    )
    optimizer = make_optimizer(
        lambda _: 0.1, 0.9, weight_decay=0.1, decay_mask=kernel_decay_mask, trainable=trainable
    )
    state = create_state(variables, optimizer, ema=False)
    step = compiled_step(network, optimizer, loss, trainable=trainable)
    after, metrics = step(state, make_batch(1))
    for _ in range(3):
        after, _ = step(after, make_batch(2))
    assert trees_equal(after.params["trunk"], variables["params"]["trunk"])
    head, old_head = after.params["heads_toy"], variables["params"]["heads_toy"]
    assert all(np.all(head[name] != old_head[name]) for name in head)
    # Running statistics of frozen layers move, as they do in torch.
    assert not trees_equal(after.batch_stats, variables["batch_stats"])
    # The norm is that of the trained leaves alone.
    _, whole = compiled_step(network, optimizer, loss)(state, make_batch(1))
    assert 0 < metrics["grad_norm"] < whole["grad_norm"]


@pytest.mark.parametrize(
    ("elementwise", "average"), [(squared, "properties"), (absolute, "entries")]
)
def test_several_devices_give_the_result_of_one(
    elementwise, average, toy_network, variables, make_batch
):
    """Rows of a vmap stand for the devices: sums over a named axis follow the same rules."""
    full, short = make_batch(1, crystals=4, missing=0.1), make_batch(2, crystals=2, missing=0.5)
    empty = jax.tree.map(np.zeros_like, full)
    optimizer = make_optimizer(lambda _: 0.1, 0.9, weight_decay=0.1, decay_mask=kernel_decay_mask)
    with jax.enable_x64(True):
        variables, *shards = jax.tree.map(in_float64, (variables, full, short, empty))
        state = create_state(variables, optimizer, ema=True)

        def step(axis_name):
            return make_train_step(
                toy_network(axis_name=axis_name),
                optimizer,
                partial(masked_loss, elementwise=elementwise, average=average),
                ema_decay=0.9,
                axis_name=axis_name,
            )

        merged = jax.tree.map(lambda *rows: np.concatenate(rows), *shards)
        expected = jax.jit(step(None))(state, merged)
        stacked = jax.tree.map(lambda *rows: np.stack(rows), *shards)
        devices = jax.vmap(step("data"), in_axes=(None, 0), axis_name="data")
        each = jax.jit(devices)(state, stacked)
    for one, all_devices in leaf_pairs(expected, each):
        for device in all_devices:
            np.testing.assert_allclose(device, one, rtol=1e-9, atol=1e-7)


def in_float64(leaf):
    return np.asarray(leaf, np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf
