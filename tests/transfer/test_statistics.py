from __future__ import annotations

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxmat.transfer.statistics import make_reestimate

STILL = "trunk/gcn_layers_0/bn_nodes"


@pytest.fixture(scope="module")
def network(make_network):
    return make_network("gap")


@pytest.fixture(scope="module")
def variables(initialise, network):
    return initialise(network, 1)


@pytest.fixture(scope="module")
def reestimate(network):
    return make_reestimate(network)


def flat(tree):
    return flatten_dict(tree, sep="/")


def assert_near(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_statistics_are_where_running_ones_go(reestimate, network, variables, batches):
    found = reestimate(variables, batches)
    # In whatever order the batches come, and whatever the statistics were.
    others = variables | {"batch_stats": jax.tree.map(lambda x: x * 2, variables["batch_stats"])}
    assert_near(found, reestimate(others, reversed(batches)))
    run = jax.jit(network.apply, static_argnames=("train", "mutable"))
    running = dict(variables)
    for _ in range(150):
        running |= run(running, batches[0], train=True, mutable="batch_stats")[1]
    assert_near(reestimate(variables, batches[:1]), running["batch_stats"])
    assert_near(
        found,
        jax.tree.map(lambda *x: np.mean(x, 0), *(reestimate(variables, [b]) for b in batches)),
    )


def test_a_crystal_counts_alike_wherever_it_is(reestimate, variables, batches):
    """A last batch of a single crystal is no half of all."""
    whole, lone = batches[0], only_first(batches[1])
    found = reestimate(variables, [whole, lone])
    one, other = (reestimate(variables, [batch]) for batch in (whole, lone))
    assert_near(found, jax.tree.map(lambda a, b: (3 * a + b) / 4, one, other))


def only_first(batch):
    """Returns a batch of a single crystal of a batch; the others become padding."""
    crystals, angles = batch.crystals, batch.angles
    sites = np.arange(len(crystals.nodes["count"])) < crystals.n_node[0]
    bonds = np.arange(len(crystals.edges["count"])) < crystals.n_edge[0]
    rows = np.arange(len(angles.edges["count"])) < angles.n_edge[0]

    def without(features, kept):
        weights = {"count", "multiplicity"} & features.keys()
        return features | {name: features[name] * kept for name in weights}

    return batch._replace(
        crystals=crystals._replace(
            nodes=without(crystals.nodes, sites), edges=without(crystals.edges, bonds)
        ),
        angles=angles._replace(edges=without(angles.edges, rows)),
        crystal_mask=batch.crystal_mask * (np.arange(len(batch.crystal_mask)) == 0),
    )


def test_training_with_them_predicts_as_evaluation_does(reestimate, network, variables, batches):
    # Of a single batch, up to its variances, which running statistics have unbiased.
    statistics = reestimate(variables, batches[:1])
    predict = jax.jit(network.apply, static_argnames=("train", "mutable"))
    trained, _ = predict(variables, batches[0], train=True, mutable="batch_stats")
    with_them = predict(variables | {"batch_stats": statistics}, batches[0])
    without = predict(variables, batches[0])
    error = [np.abs(each - trained)[:3].max() for each in (with_them, without)]
    assert error[0] < 0.3 * error[1]


def test_still_norms_keep_theirs_bit_for_bit(network, variables, batches):
    found = flat(make_reestimate(network, (STILL,))(variables, batches))
    before = flat(variables["batch_stats"])
    same = {name for name in before if np.array_equal(before[name], found[name])}
    assert same == {f"{STILL}/mean", f"{STILL}/var"}


def test_variances_are_never_negative(reestimate, variables, batches):
    large = jax.tree.map(lambda leaf: leaf + 1e5, variables["batch_stats"])
    found = flat(reestimate(variables | {"batch_stats": large}, batches))
    assert all((leaf >= 0).all() for name, leaf in found.items() if name.endswith("/var"))
