from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer, published_decay_mask
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
