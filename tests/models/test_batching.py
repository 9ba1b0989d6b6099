"""What shares a batch, padding included, does not reach a crystal's prediction."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import GraphSettings, build_graphs

ROOMY = Shape(7, 96, 1024, 8192)


@pytest.fixture(scope="module")
def crystals(structures):
    return list(build_graphs(structures[:5], GraphSettings()))


@pytest.fixture(scope="module")
def evaluate(tiny, tiny_variables):
    run = jax.jit(partial(golden.evaluate, tiny))

    def evaluate(graphs, shape):
        with jax.enable_x64(True):
            batch = batch_crystals(
                graphs, np.arange(float(len(graphs)))[:, None], shape, np.float64
            )
            return run(tiny_variables, batch)

    return evaluate


def test_mates_do_not_change_predictions(crystals, evaluate):
    together = evaluate(crystals, ROOMY)["evaluation, predictions"]
    for i, crystal in enumerate(crystals):
        alone = evaluate([crystal], ROOMY)["evaluation, predictions"]
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-13)
    backwards = evaluate(crystals[::-1], ROOMY)["evaluation, predictions"]
    np.testing.assert_allclose(backwards[:5], together[:5][::-1], rtol=1e-13)


def test_padding_changes_nothing(crystals, evaluate):
    """Neither predictions nor gradients nor statistics, in evaluation and in training."""
    loose = evaluate(crystals, ROOMY)
    target = np.arange(5.0)[:, None]
    rows = golden.together(crystals, target)
    least = Shape(
        6,
        *(
            len(x)
            for x in (rows.crystals.nodes["count"], rows.crystals.senders, rows.angles.senders)
        ),
    )
    small = evaluate(crystals, least)
    for what, values in small.items():
        expected = loose[what]
        if "predictions" in what:
            assert not expected[6:].any()
            expected = expected[:6]
        for error in jax.tree.leaves(jax.tree.map(golden.difference, values, expected)):
            assert error < 1e-12, what


def test_slots_without_a_crystal_are_finite(crystals, tiny, tiny_variables, evaluate):
    result = evaluate(crystals[:1], ROOMY)
    for leaf in jax.tree.leaves(result):
        assert np.isfinite(leaf).all()
    batch = batch_crystals(crystals[:1], np.zeros((1, 1)), ROOMY)
    outputs = tiny.apply(jax.tree.map(np.float32, tiny_variables), batch)
    assert outputs.shape == (7, 1) and np.isfinite(outputs).all()


def test_a_cell_of_one_atom_can_be_trained_on_alone(golden_folder, tiny_variables, evaluate):
    """A batch of one site has no variance: torch raises, here the running one stays."""
    (crystal, *_) = golden.golden_crystals(
        golden.read_arrays(golden_folder / "graphs_canonical.npz")
    )
    assert crystal.site_count.tolist() == [1] and len(crystal.bond_length) == 24
    result = evaluate([crystal], ROOMY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    before = golden.flat({"batch_stats": tiny_variables["batch_stats"]})
    after = golden.flat(result["training, running statistics"])
    of_sites = ("atom_embedding", "node_update/bn_nodes", "gcn_layers_0/bn_nodes")
    assert before.keys() == after.keys()
    for path in before:
        moved = not np.array_equal(before[path], after[path])
        assert moved == (not (path.endswith("var") and any(part in path for part in of_sites))), (
            path
        )


def test_a_lone_atom_has_no_bonds_but_a_prediction(lone_atom, crystals, tiny_variables, evaluate):
    result = evaluate([lone_atom], ROOMY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    before = golden.flat({"batch_stats": tiny_variables["batch_stats"]})
    after = golden.flat(result["training, running statistics"])
    for path in before:
        # No bond, no angle: nothing to take a mean of.
        if "edge" in path or "angle" in path:
            np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    mixed = evaluate([lone_atom, *crystals], ROOMY)["evaluation, predictions"]
    np.testing.assert_allclose(mixed[0], result["evaluation, predictions"][0], rtol=1e-13)
