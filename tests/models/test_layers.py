from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.models.layers import (
    BatchNormSiLU,
    GatedGraphConv,
    Linear,
    WeightedEdges,
    radial_basis,
    radial_centers,
)

START = {
    "params": {"scale": np.array([1.5, 0.5, 2.0]), "bias": np.array([0.1, -0.2, 0.3])},
    "batch_stats": {"mean": np.array([0.2, 0.3, 0.4]), "var": np.array([1.0, 2.0, 3.0])},
}


def normalize(x, weight, variables=START, axis_name=None):
    """Output and running mean and variance in training mode."""
    norm = BatchNormSiLU(axis_name)
    output, updated = norm.apply(variables, x, weight, train=True, mutable="batch_stats")
    return output, updated["batch_stats"]["mean"], updated["batch_stats"]["var"]


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 3)) * [1.0, 10.0, 0.1] + 3.0


def test_batch_norm_has_the_numbers_of_torch(rows, float64):
    output, mean, var = normalize(rows, np.ones(5))
    centred = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)
    params = START["params"]
    np.testing.assert_allclose(output, nn.silu(centred * params["scale"] + params["bias"]))
    np.testing.assert_allclose(mean, 0.9 * START["batch_stats"]["mean"] + 0.1 * rows.mean(axis=0))
    np.testing.assert_allclose(
        var, 0.9 * START["batch_stats"]["var"] + 0.1 * rows.var(axis=0, ddof=1)
    )


def test_running_statistics_normalize_in_evaluation(rows, float64):
    output = BatchNormSiLU().apply(START, rows, np.ones(5), train=False)
    stats, params = START["batch_stats"], START["params"]
    centred = (rows - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(output, nn.silu(centred * params["scale"] + params["bias"]))


def test_a_count_is_as_many_rows_and_zero_is_none(rows, float64):
    count = np.array([1, 3, 0, 2, 1])
    weighted = normalize(rows, count.astype(float))
    repeated = normalize(np.repeat(rows, count, axis=0), np.ones(7))
    np.testing.assert_allclose(np.repeat(weighted[0], count, axis=0), repeated[0])
    for one, other in zip(weighted[1:], repeated[1:], strict=True):
        np.testing.assert_allclose(one, other)


def test_one_row_leaves_the_running_variance_and_none_leaves_both(rows, float64):
    output, mean, var = normalize(rows, np.array([0.0, 1.0, 0.0, 0.0, 0.0]))
    assert np.isfinite(output).all()
    np.testing.assert_allclose(mean, 0.9 * START["batch_stats"]["mean"] + 0.1 * rows[1])
    np.testing.assert_array_equal(var, START["batch_stats"]["var"])
    output, mean, var = normalize(rows, np.zeros(5))
    assert np.isfinite(output).all()
    np.testing.assert_array_equal(mean, START["batch_stats"]["mean"])
    np.testing.assert_array_equal(var, START["batch_stats"]["var"])


def test_nearly_identical_rows_stay_finite_in_single_precision():
    """The one-pass variance, the mean of squares less the square of the mean, is negative here."""
    rows = np.float32(1000) + np.random.default_rng(0).normal(size=(4000, 3), scale=1e-3)
    rows, weight = rows.astype(np.float32), np.ones(4000, np.float32)
    one_pass = np.mean(rows**2, axis=0) - np.mean(rows, axis=0) ** 2
    assert one_pass.min() < -1e-5
    output, mean, var = normalize(rows, weight, jax.tree.map(np.float32, START))
    assert np.isfinite(output).all() and np.isfinite(var).all()
    np.testing.assert_allclose(mean, 0.9 * START["batch_stats"]["mean"] + 100, rtol=1e-6)
    np.testing.assert_allclose(var, 0.9 * START["batch_stats"]["var"], rtol=1e-4)


def test_means_of_many_rows_are_exact_in_single_precision():
    rows = np.random.default_rng(0).normal(size=(30_000, 3)).astype(np.float32) + 2
    _, mean, _ = normalize(rows, np.ones(30_000, np.float32), jax.tree.map(np.float32, START))
    expected = 0.9 * START["batch_stats"]["mean"] + 0.1 * rows.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_devices_have_the_statistics_of_all_their_rows(rows, float64):
    """Two devices, one with more rows than the other; they stand here for rows of a vmap."""
    parts, weight = np.stack([rows, rows + 1.0]), np.array([[1.0] * 5, [2.0, 1.0, 0.0, 0.0, 0.0]])
    output, mean, var = jax.vmap(
        lambda x, w: normalize(x, w, axis_name="data"), axis_name="data", out_axes=(0, None, None)
    )(parts, weight)
    expected = normalize(parts.reshape(10, 3), weight.reshape(10))
    for one, other in zip((output.reshape(10, 3), mean, var), expected, strict=True):
        np.testing.assert_allclose(one, other)


def test_linear_starts_as_torch_does():
    layer = Linear(400)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 25)))
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    for leaf in (kernel, bias):
        assert 0.95 * 0.2 < np.abs(leaf).max() <= 0.2
        assert abs(np.mean(leaf)) < 0.02


def convolution(nodes, edges, graph, train, variables):
    return GatedGraphConv(4).apply(variables, nodes, edges, graph, train, mutable="batch_stats")


@pytest.fixture
def graph() -> tuple[np.ndarray, np.ndarray, WeightedEdges]:
    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(3, 4)),
        rng.normal(size=(4, 4)),
        WeightedEdges(
            sender=np.array([1, 2, 0, 1]),
            receiver=np.array([0, 0, 1, 2]),
            multiplicity=np.array([2.0, 1.0, 3.0, 1.0]),
            edge_count=np.array([2.0, 1.0, 3.0, 1.0]),
            node_count=np.ones(3),
        ),
    )


@pytest.fixture
def weights(graph) -> dict:
    init = partial(GatedGraphConv(4).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *graph)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 1.0, size=leaf.shape), shapes)


@pytest.mark.parametrize("train", [False, True])
def test_multiplicity_is_as_many_edges(train, graph, weights, float64):
    nodes, edges, weighted = graph
    times = np.array([2, 1, 3, 1])
    repeated = WeightedEdges(
        np.repeat(weighted.sender, times),
        np.repeat(weighted.receiver, times),
        *(np.ones(7), np.ones(7), np.ones(3)),
    )
    one, one_stats = convolution(nodes, edges, weighted, train, weights)
    other, other_stats = convolution(
        nodes, np.repeat(edges, times, axis=0), repeated, train, weights
    )
    np.testing.assert_allclose(one[0], other[0])
    np.testing.assert_allclose(np.repeat(one[1], times, axis=0), other[1])
    for leaf, expected in zip(
        jax.tree.leaves(one_stats), jax.tree.leaves(other_stats), strict=True
    ):
        np.testing.assert_allclose(leaf, expected)


def test_gated_convolution_by_hand(graph, weights, float64):
    """The formula, one node and one edge at a time."""
    nodes, edges, weighted = graph
    (new_nodes, new_edges), _ = convolution(nodes, edges, weighted, False, weights)
    params, stats = weights["params"], weights["batch_stats"]

    def linear(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def after_norm(name, x):
        centred = (x - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-5)
        x = centred * params[name]["scale"] + params[name]["bias"]
        return x / (1 + np.exp(-x))

    messages = [
        linear("src_gate", nodes[s]) + linear("dst_gate", nodes[r]) + linear("edge_gate", edge)
        for s, r, edge in zip(weighted.sender, weighted.receiver, edges, strict=True)
    ]
    for edge, message, found in zip(edges, messages, new_edges, strict=True):
        np.testing.assert_allclose(found, edge + after_norm("bn_edges", message))
    for i, node in enumerate(nodes):
        total, gates = 0.0, 1e-6
        for e in np.flatnonzero(weighted.receiver == i):
            gate = weighted.multiplicity[e] / (1 + np.exp(-messages[e]))
            total += gate * linear("dst_update", nodes[weighted.sender[e]])
            gates += gate
        update = linear("src_update", node) + total / gates
        np.testing.assert_allclose(new_nodes[i], node + after_norm("bn_nodes", update))


@pytest.mark.parametrize(
    ("entry", "low", "high", "gamma"),
    [
        ("edge_embedding.0.centers", 0.0, 8.0, 9.875),
        ("angle_embedding.0.centers", -1.0, 1.0, 19.500001907348633),
    ],
)
def test_radial_basis_has_the_single_precision_numbers_of_the_reference(
    entry, low, high, gamma, golden_folder, float64
):
    centers = golden.read_arrays(golden_folder / "single_weights.npz")[entry]
    np.testing.assert_array_equal(radial_centers(low, high, len(centers)), centers)
    values = np.array([low, 0.3, high])
    found = radial_basis(jnp.asarray(values), low, high, len(centers))
    expected = np.exp(-gamma * (values[:, None] - centers.astype(np.float64)) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
