from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmat.errors import UserError
from jaxmat.models.alignn import published_decay_mask
from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer
from jaxmat.training.schedules import onecycle, onecycle_beta1

PARAMS = {
    "trunk": {
        "atom_embedding": {
            "linear": {"kernel": 1.0, "bias": 1.0},
            "norm": {"scale": 1.0, "bias": 1.0},
        },
        "gcn_layers_0": {
            "src_gate": {"kernel": 1.0, "bias": 1.0},
            "bn_nodes": {"scale": 1.0, "bias": 1.0},
            "bn_edges": {"scale": 1.0, "bias": 1.0},
        },
    },
    # A property may well be called so; only the last part of a name makes a bias.
    "heads_bias_bn": {"out": {"kernel": 1.0, "bias": 1.0}},
}


def names_that_decay(mask) -> set[str]:
    leaves = jax.tree_util.tree_leaves_with_path(mask)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") for path, decays in leaves if decays
    }


KERNELS = {
    "trunk/atom_embedding/linear/kernel",
    "trunk/gcn_layers_0/src_gate/kernel",
    "heads_bias_bn/out/kernel",
}


def test_published_mask_decays_kernels_and_the_scales_called_norm():
    expected = KERNELS | {"trunk/atom_embedding/norm/scale"}
    assert names_that_decay(published_decay_mask(PARAMS)) == expected


def test_kernel_mask_decays_kernels_alone():
    assert names_that_decay(kernel_decay_mask(PARAMS)) == KERNELS


def torch_adamw(params, gradients, rates, beta1s, weight_decay, decays):
    """torch.optim.AdamW, which corrects the first moment with the present beta1."""
    params = dict(params)
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for t, (gradient, rate, beta1) in enumerate(zip(gradients, rates, beta1s, strict=True), 1):
        for name, g in gradient.items():
            if decays[name]:
                params[name] = params[name] * (1 - rate * weight_decay)
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            step = rate / (1 - beta1**t)
            params[name] = params[name] - step * m[name] / (
                np.sqrt(v[name]) / np.sqrt(1 - 0.999**t) + 1e-8
            )
    return params


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.fixture
def gradients():
    rng = np.random.default_rng(1)
    return [{"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)} for _ in range(12)]


@pytest.mark.parametrize("mask", [kernel_decay_mask, {"kernel": True, "bias": False}])
def test_agrees_with_torch_under_onecycle(mask, gradients):
    with jax.enable_x64(True):
        params = {"kernel": np.ones((3, 2)), "bias": np.ones(2)}
        rate, beta1 = onecycle(0.1, 12), onecycle_beta1(12)
        optimizer = make_optimizer(rate, beta1, weight_decay=0.3, decay_mask=mask)
        ours, _ = run(optimizer, params, gradients)
        steps = np.arange(12)
        decays = {"kernel": True, "bias": False}
        theirs = torch_adamw(params, gradients, rate(steps), beta1(steps), 0.3, decays)
    for name in params:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12)


@pytest.mark.parametrize(
    "mask", [kernel_decay_mask, {"a": {"kernel": True}, "b": {"kernel": True}}]
)
def test_frozen_leaves_stay_bit_for_bit_and_have_no_moments(mask):
    params = {"a": {"kernel": jnp.ones((7, 3))}, "b": {"kernel": jnp.ones((7, 2))}}
    trainable = {"a": {"kernel": True}, "b": {"kernel": False}}
    rate = optax.constant_schedule(0.1)
    optimizer = make_optimizer(rate, 0.9, weight_decay=0.5, decay_mask=mask, trainable=trainable)
    gradients = [jax.tree.map(lambda leaf: jnp.full_like(leaf, 2.0), params)] * 3
    moved, state = run(optimizer, params, gradients)
    np.testing.assert_array_equal(moved["b"]["kernel"], params["b"]["kernel"])
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert shapes.count((7, 3)) == 2 and (7, 2) not in shapes
    # The trained leaf moves as it would alone.
    alone = make_optimizer(rate, 0.9, weight_decay=0.5, decay_mask=kernel_decay_mask)
    expected, _ = run(alone, {"a": params["a"]}, [{"a": gradient["a"]} for gradient in gradients])
    np.testing.assert_array_equal(moved["a"]["kernel"], expected["a"]["kernel"])


def test_state_tells_the_present_rate_and_beta1():
    params = {"kernel": jnp.ones(2)}
    optimizer = make_optimizer(
        lambda step: 0.5 / (1 + step), 0.8, weight_decay=0.0, decay_mask=kernel_decay_mask
    )
    _, state = run(optimizer, params, [params] * 4)
    assert optax.tree.get(state, "hyperparams") == pytest.approx(
        {"learning_rate": 0.125, "b1": 0.8}
    )


LAYERS = {name: {"kernel": jnp.full((2, 3), value)} for name, value in (("a", 1.0), ("b", -2.0))}


def layer_gradients():
    normal = np.random.default_rng(0).normal(size=(6, 2, 2, 3))
    return [{"a": {"kernel": a}, "b": {"kernel": b}} for a, b in normal]


def test_a_factor_is_a_learning_rate_of_its_own_for_decay_and_penalty_too():
    source = {"a": {"kernel": jnp.zeros((2, 3))}, "b": {"kernel": jnp.ones((2, 3))}}

    def make(rate, **options):
        return make_optimizer(
            lambda step: rate / (1 + step),
            0.9,
            weight_decay=0.3,
            decay_mask=kernel_decay_mask,
            source=source,
            source_penalty=0.2,
            **options,
        )

    factors = {"a": {"kernel": 0.25}, "b": {"kernel": 1.0}}
    both, _ = run(make(0.1, rate_factors=factors), LAYERS, layer_gradients())
    slow, _ = run(make(0.025), LAYERS, layer_gradients())
    fast, _ = run(make(0.1), LAYERS, layer_gradients())
    np.testing.assert_allclose(both["a"]["kernel"], slow["a"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(both["b"]["kernel"], fast["b"]["kernel"])
    assert not np.allclose(slow["a"]["kernel"], fast["a"]["kernel"], rtol=1e-2)


def test_without_gradients_the_distance_to_the_source_shrinks_geometrically():
    rates = np.array([0.5, 0.2, 0.1, 0.4])
    with jax.enable_x64(True):
        source = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
        optimizer = make_optimizer(
            lambda step: jnp.asarray(rates)[step],
            0.9,
            weight_decay=0.0,
            decay_mask=kernel_decay_mask,
            source=source,
            source_penalty=0.5,
        )
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), LAYERS)
        moved, _ = run(optimizer, params, [jax.tree.map(jnp.zeros_like, params)] * 4)
        kept = np.prod(1 - 0.5 * rates)
        expected = source["a"]["kernel"] + kept * (params["a"]["kernel"] - source["a"]["kernel"])
    np.testing.assert_allclose(moved["a"]["kernel"], expected, rtol=1e-14)
    np.testing.assert_array_equal(moved["b"]["kernel"], params["b"]["kernel"])  # has no source


def test_members_of_a_population_are_pulled_each_to_its_own_source():
    gradient = layer_gradients()[0]

    def step(source, params):
        optimizer = make_optimizer(
            lambda _: 0.1,
            0.9,
            weight_decay=0.1,
            decay_mask=kernel_decay_mask,
            trainable={"a": {"kernel": True}, "b": {"kernel": False}},
            source=source,
            source_penalty=0.5,
        )
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    sources = {"a": {"kernel": jnp.arange(12.0).reshape(2, 2, 3)}}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 3 * leaf]), LAYERS)
    together = jax.jit(jax.vmap(step))(sources, stacked)
    for i in range(2):
        source, params = jax.tree.map(lambda leaf, i=i: leaf[i], (sources, stacked))
        alone = step(source, params)
        np.testing.assert_allclose(together["a"]["kernel"][i], alone["a"]["kernel"], rtol=1e-6)
        np.testing.assert_array_equal(together["b"]["kernel"][i], params["b"]["kernel"])
    assert not np.allclose(together["a"]["kernel"][0], together["a"]["kernel"][1])


@pytest.mark.parametrize("source", [{}, {"params": LAYERS}, {"b": LAYERS["b"]}])
def test_a_penalty_that_acts_on_nothing_is_refused(source):
    optimizer = make_optimizer(
        lambda _: 0.1,
        0.9,
        weight_decay=0.0,
        decay_mask=kernel_decay_mask,
        trainable={"a": {"kernel": True}, "b": {"kernel": False}},
        source=source,
        source_penalty=0.5,
    )
    with pytest.raises(UserError, match="copied from it and train"):
        optimizer.update(LAYERS, optimizer.init(LAYERS), LAYERS)
