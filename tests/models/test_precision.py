"""How a network is computed changes neither what it is nor, beyond rounding, what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.batch import CrystalBatch
from jaxmat.bundles.model import initial_variables, variable_shapes
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.models.cogn import BondBlock
from jaxmat.models.network import PRECISIONS, build_network
from jaxmat.training.step import compiler_options

Result = dict[str, Any]


@pytest.fixture(scope="module")
def batch(structures) -> CrystalBatch:
    graphs = list(build_graphs(structures[:5], GraphSettings()))
    return golden.together(graphs, np.arange(5.0)[:, None])


@pytest.fixture(scope="module")
def result(tiny, tiny_variables, batch) -> Callable[..., Result]:
    """Predictions, gradients and statistics of the tiny network, computed in some way."""

    def result(dtype: type, **how: Any) -> Result:
        network = build_network(tiny.trunk_options, tiny.head_options, **how)
        with jax.enable_x64(dtype is np.float64):
            variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tiny_variables)
            run = partial(golden.evaluate, network)
            return jax.jit(run, compiler_options=compiler_options("cpu"))(variables, batch)

    return result


@pytest.fixture(scope="module")
def exact(result) -> Result:
    return result(np.float64)


def errors(found: Result, expected: Result) -> dict[str, float]:
    """The norm of the differences of all leaves of a kind, relative to that of the leaves."""

    def norm(tree: Any) -> float:
        return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))

    differences = jax.tree.map(np.subtract, found, expected)
    there = [what for what, tree in expected.items() if jax.tree.leaves(tree)]
    return {what: norm(differences[what]) / norm(expected[what]) for what in there}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("remat", [False, True])
def test_variables_are_the_same(precision, remat, tiny):
    network = build_network(tiny.trunk_options, tiny.head_options, precision=precision, remat=remat)
    assert variable_shapes(network) == variable_shapes(tiny)
    assert (network.trunk_options, network.head_options) == (tiny.trunk_options, tiny.head_options)


def test_random_variables_are_the_same(tiny, batch):
    network = build_network(tiny.trunk_options, tiny.head_options, precision="bfloat16", remat=True)
    expected, found = (
        golden.flat(jax.jit(each.init)(jax.random.key(0), batch)) for each in (tiny, network)
    )
    for name, leaf in expected.items():
        assert leaf.dtype == np.float32, name
        np.testing.assert_array_equal(leaf, found[name], err_msg=name)


def test_variables_drawn_one_by_one_are_those_of_one_program(tiny, structures, batch):
    data = Dataset(list(build_graphs(structures[:1], GraphSettings())), np.zeros((1, 1)))
    expected = golden.flat(dict(jax.jit(tiny.init)(jax.random.key(7), batch)))
    found = golden.flat(initial_variables(tiny, data, 7))
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_computing_layers_again_changes_nothing(result, exact):
    found = result(np.float64, remat=True)
    assert max(errors(found, exact).values()) < 1e-13


@pytest.mark.slow
def test_what_is_computed_again_saves_memory(batch):
    """Without the compiler's options XLA of JAX 0.10 keeps the insides of gates and norms."""

    def temporary_bytes(remat: bool, options: Any) -> int:
        trunk = {"kind": "alignn", "width": 64, "embedding_width": 4, "alignn_layers": 4}
        network = build_network(trunk | {"gcn_layers": 0}, {"gap": {"kind": "linear"}}, remat=remat)
        variables = jax.eval_shape(network.init, jax.random.key(0), batch)

        def total(params: Any, batch_stats: Any) -> jax.Array:
            stale = {"params": params, "batch_stats": batch_stats}
            return network.apply(stale, batch, train=True, mutable="batch_stats")[0].sum()

        run = jax.jit(jax.grad(total), compiler_options=options)
        program = run.lower(variables["params"], variables["batch_stats"]).compile()
        return program.memory_analysis().temp_size_in_bytes

    insides = temporary_bytes(False, compiler_options("cpu"))
    kept_after_all = 0.85 if jax.__version_info__ < (0, 11) else 1.01
    assert insides < kept_after_all * temporary_bytes(False, {})
    assert temporary_bytes(True, compiler_options("cpu")) < 0.9 * insides


def test_half_precision_is_near_and_is_used(result, exact):
    """Rounding to bfloat16 is an error of at most 0.004; were nothing rounded, it would show."""
    found = result(np.float32, precision="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    for what, error in errors(found, exact).items():
        assert 1e-4 < error < 0.02, what


def test_rows_stay_in_half_precision_where_they_are_normalised(batch):
    block = BondBlock(8, sum_bonds=False, layer_norm=True)
    x, e = (jnp.zeros((len(one), 8), jnp.bfloat16) for one in batch_rows(batch))
    rows, _ = jax.eval_shape(block.init_with_output, jax.random.key(0), x, e, batch)
    assert {row.dtype for row in rows} == {jnp.dtype(jnp.bfloat16)}


def batch_rows(batch: CrystalBatch) -> tuple[jax.Array, jax.Array]:
    return batch.crystals.nodes["count"], batch.crystals.edges["count"]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", {("HIGHEST", "f32")}),
        ("tensorfloat32", {("HIGH", "f32")}),
        # The head gets float32 vectors.
        ("bfloat16", {("DEFAULT", "bf16"), ("DEFAULT", "f32")}),
    ],
)
def test_matrix_products_have_the_precision_asked_for(
    precision, expected, tiny, tiny_variables, batch
):
    """Forward and backward."""
    network = build_network(tiny.trunk_options, tiny.head_options, precision=precision)
    program = jax.jit(partial(golden.evaluate, network)).lower(tiny_variables, batch).as_text()
    products = re.findall(
        r"dot_general.* precision = \[(\w+), \1\] : \(tensor<[\dx]+x(\w+)>, tensor<[\dx]+x\2>",
        program,
    )
    assert len(products) == program.count("dot_general")
    assert set(products) == expected
