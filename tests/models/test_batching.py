"""What shares a batch, padding included, does not reach a crystal's prediction."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.batch import Shape
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.shapes import graph_sizes


@pytest.fixture(scope="module")
def crystals(structures, angles):
    return list(build_graphs(structures[:5], GraphSettings(angles=angles)))


def test_mates_do_not_change_predictions(crystals, evaluate):
    together = evaluate(crystals)["evaluation, predictions"]
    for i, crystal in enumerate(crystals):
        alone = evaluate([crystal])["evaluation, predictions"]
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-13)
    backwards = evaluate(crystals[::-1])["evaluation, predictions"]
    np.testing.assert_allclose(backwards[:5], together[:5][::-1], rtol=1e-13)


def test_padding_changes_nothing(crystals, evaluate):
    """Neither predictions nor gradients nor statistics, in evaluation and in training."""
    loose = evaluate(crystals)
    sites, bonds, angles = graph_sizes(crystals).sum(axis=0).tolist()
    least = Shape(6, sites + 1, bonds + 1, angles)
    small = evaluate(crystals, least)
    for what, values in small.items():
        expected = loose[what]
        if "predictions" in what:
            assert not expected[6:].any()
            expected = expected[:6]
        for error in jax.tree.leaves(jax.tree.map(golden.difference, values, expected)):
            assert error < 1e-12, what


def test_slots_without_a_crystal_are_finite(crystals, evaluate):
    """A NaN would come through: evaluate multiplies predictions by the mask of crystals."""
    result = evaluate(crystals[:1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_a_cell_of_one_atom_can_be_trained_on_alone(golden_folder, tiny_variables, evaluate):
    """A batch of one site has no variance: torch raises, here the running one stays."""
    (crystal, *_) = golden.golden_crystals(
        golden.read_arrays(golden_folder / "graphs_canonical.npz")
    )
    assert crystal.site_count.tolist() == [1] and len(crystal.bond_length) == 24
    result = evaluate([crystal])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    before = golden.flat({"batch_stats": tiny_variables["batch_stats"]})
    after = golden.flat(result["training, running statistics"])
    assert before.keys() == after.keys()
    # The bond network has no batch norms.
    of_sites = ("atom_embedding", "node_update/bn_nodes", "gcn_layers_0/bn_nodes")
    for path in before:
        stays = path.endswith("var") and any(part in path for part in of_sites)
        assert np.array_equal(before[path], after[path]) == stays, path


def test_a_lone_atom_has_no_bonds_but_a_prediction(lone_atom, crystals, tiny_variables, evaluate):
    result = evaluate([lone_atom])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    before = golden.flat({"batch_stats": tiny_variables["batch_stats"]})
    after = golden.flat(result["training, running statistics"])
    for path in before:
        # No bond, no angle: nothing to take a mean of.
        if "edge" in path or "angle" in path:
            np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    mixed = evaluate([lone_atom, *crystals])["evaluation, predictions"]
    np.testing.assert_allclose(mixed[0], result["evaluation, predictions"][0], rtol=1e-13)
