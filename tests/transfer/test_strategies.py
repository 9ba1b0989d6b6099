from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxmat.errors import UserError
from jaxmat.models.network import make_trunk
from jaxmat.models.trunk import Groups
from jaxmat.training.optimizers import make_optimizer
from jaxmat.training.still import still
from jaxmat.transfer.head_first import HeadFirst
from jaxmat.transfer.strategies import (
    STRATEGIES,
    Strategy,
    get_strategy,
    rate_factors,
    require_groups,
    still_norms,
    target_head,
    trainable_mask,
    transfer_rules,
)
from jaxmat.transfer.trees import copied_params, transfer

from .conftest import TRUNK

COMBINED = Strategy(
    head={"kind": "mlp", "width": 4},
    frozen=("atom_embedding",),
    still=("last_blocks", "atom_embedding"),
    head_first=HeadFirst(),
    rate_factors={"trunk": 0.5},
    source_penalty=0.1,
)
GROUPS = make_trunk(TRUNK).groups()
EVERY = STRATEGIES | {"combined": COMBINED}
# Of strategies that train alike, one.
DIFFERENT = {
    repr(replace(strategy, head_first=None, interpolation=(), members=1)): name
    for name, strategy in reversed(EVERY.items())
    if not name.startswith("gaussian_process")  # fitted in closed form, nothing is trained
}.values()


@pytest.fixture(scope="module")
def source(make_network, initialise):
    return initialise(make_network("energy"), 1)


@pytest.fixture(scope="module")
def start(make_network, initialise, source):
    """From a strategy to the target network, its first variables and the source's part of them."""

    def start(strategy):
        head, continued = target_head(strategy, "gap", {"energy": {"kind": "linear"}})
        network = make_network("gap", **head)
        rules = transfer_rules("gap", continued)
        variables, report = transfer(source, initialise(network, 2), *rules)
        return network, variables, copied_params(variables, report)

    return start


def flat(tree):
    return flatten_dict(tree, sep="/")


def names(tree, prefix=""):
    return {name for name in flat(tree) if name.startswith(prefix)}


ALL = [
    *("atom_embedding", "alignn_layers_0/node_update", "alignn_layers_0/edge_update"),
    *(f"{part}_embedding_{i}" for part in ("edge", "angle") for i in (0, 1)),
    "gcn_layers_0",
]
TRAINED = {
    "all_layers": ALL,
    "last_layer": [],
    "new_head": [],
    "new_head_freeze_1": [part for part in ALL if part != "atom_embedding"],
    "new_head_freeze_6": [],
    "two_body": ["alignn_layers_0/node_update", "gcn_layers_0"],
    "three_body": ["alignn_layers_0/edge_update"],
}


@pytest.mark.parametrize("name", TRAINED)
def test_published_strategies_train_what_the_authors_scripts_do(name, start):
    strategy = STRATEGIES[name]
    _, variables, _ = start(strategy)
    params = variables["params"]
    everything = jax.tree.map(lambda _: True, params)
    mask = flat(trainable_mask(params, strategy, GROUPS) or everything)
    expected = {leaf for part in TRAINED[name] for leaf in names(params, f"trunk/{part}/")}
    assert {leaf for leaf, moves in mask.items() if moves} == expected | names(params, "heads_gap")
    head = names(params["heads_gap"])
    new_head = {"hidden_0/kernel", "hidden_0/bias", "out/kernel", "out/bias"}
    assert head == (new_head if "new_head" in name else {"out/kernel", "out/bias"})
    assert not strategy.still


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_frozen_or_still_stays_bit_for_bit_and_the_rest_moves(name, start, batches):
    strategy = EVERY[name]
    network, before, source = start(strategy)
    after, opt_state = tune(network, before, strategy, source, batches)
    mask = trainable_mask(before["params"], strategy, GROUPS)
    mask = flat(mask or jax.tree.map(lambda _: True, before["params"]))
    old, new = flat(before["params"]), flat(after["params"])
    assert {leaf for leaf in old if not np.array_equal(old[leaf], new[leaf])} == {
        leaf for leaf, moves in mask.items() if moves
    }
    moments = [leaf.size for leaf in jax.tree.leaves(opt_state) if jnp.ndim(leaf)]
    assert sum(moments) == 2 * sum(old[leaf].size for leaf, moves in mask.items() if moves)
    stays = still_norms(before["batch_stats"], strategy, GROUPS)
    old, new = flat(before["batch_stats"]), flat(after["batch_stats"])
    assert {leaf for leaf in old if np.array_equal(old[leaf], new[leaf])} == {
        f"{norm}/{key}" for norm in stays for key in ("mean", "var")
    }


def tune(network, variables, strategy, source, batches):
    """A few steps of training."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    optimizer = make_optimizer(
        optax.constant_schedule(0.01),
        0.9,
        weight_decay=0.1,
        # Everything decays, so that leaves without gradient, such as the last norms of bonds, move.
        decay_mask=jax.tree.map(lambda _: True, params),
        trainable=trainable_mask(params, strategy, GROUPS),
        rate_factors=rate_factors(params, strategy, GROUPS),
        source=source,
        source_penalty=strategy.source_penalty,
    )
    norms = still_norms(batch_stats, strategy, GROUPS)

    # Not compiled: programs of different strategies share nothing but their operations.
    @partial(jax.grad, has_aux=True)
    def differentiate(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        with still(norms):
            prediction, updated = network.apply(variables, batch, train=True, mutable="batch_stats")
        return ((prediction - batch.target) ** 2).sum(), updated["batch_stats"]

    opt_state = optimizer.init(params)
    for batch in batches[:2]:
        gradients, batch_stats = differentiate(params, batch_stats, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
    return {"params": params, "batch_stats": batch_stats}, opt_state


def test_every_published_strategy_with_frozen_parts_has_one_with_still_statistics():
    for name in TRAINED:
        strategy = STRATEGIES[name]
        if strategy.frozen:
            assert STRATEGIES[f"{name}_still"] == replace(strategy, still=strategy.frozen)


def test_still_norms_are_those_of_the_patterns(start):
    _, variables, _ = start(STRATEGIES["three_body_still"])
    norms = still_norms(variables["batch_stats"], STRATEGIES["three_body_still"], GROUPS)
    convolutions = ("alignn_layers_0/node_update", "gcn_layers_0")
    expected = [
        f"trunk/{part}/{norm}" for part in convolutions for norm in ("bn_nodes", "bn_edges")
    ]
    expected += [f"trunk/{part}/norm" for part in ALL if "embedding" in part]
    assert norms == tuple(sorted(expected))
    assert still_norms({}, STRATEGIES["last_layer_still"], GROUPS) == ()


def test_the_first_group_decides_the_factor_and_the_rest_have_one():
    params = {"trunk": {"a": 0.0, "a_2": 0.0, "b": 0.0}, "heads_gap": 0.0}
    strategy = Strategy(rate_factors={"embedding": 0.3, "trunk": 0.5})
    factors = rate_factors(params, strategy, Groups(embedding=("a",)))
    assert factors == {"trunk": {"a": 0.3, "a_2": 0.5, "b": 0.5}, "heads_gap": 1.0}
    assert rate_factors(params, Strategy(), Groups()) is None


def test_a_strategy_about_what_a_trunk_does_not_have_is_refused():
    without = replace(GROUPS, three_body=())
    for name in ("three_body", "three_body_still"):
        assert require_groups(name, GROUPS) is STRATEGIES[name]
        with pytest.raises(UserError, match=f"'{name}' is not for .* no three_body .* has embedd"):
            require_groups(name, without)
    for name in STRATEGIES.keys() - {"three_body", "three_body_still"}:
        assert require_groups(name, without) is STRATEGIES[name]


def test_halves_of_the_blocks_are_all_of_them():
    for number in range(4):
        groups = Groups(blocks=tuple(f"layers_{i}" for i in range(number)))
        halves = groups.patterns("first_blocks") + groups.patterns("last_blocks")
        assert halves == groups.patterns("blocks") and len(halves) == number


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_does_not_train_is_refused(factor):
    with pytest.raises(UserError, match=f"under frozen:\n  trunk: {factor}"):
        rate_factors({"trunk": 0.0}, Strategy(rate_factors={"trunk": factor}), Groups())


def test_the_head_of_the_same_property_goes_on_or_else_the_only_one():
    keep, several = Strategy(), {"gap": {"kind": "mlp"}, "energy": {"kind": "linear"}}
    assert target_head(keep, "gap", several) == ({"kind": "mlp"}, "gap")
    assert target_head(keep, "energy", several) == ({"kind": "linear"}, "energy")
    assert target_head(keep, "gap", {"energy": {"kind": "linear"}}) == (
        {"kind": "linear"},
        "energy",
    )
    assert target_head(STRATEGIES["new_head"], "gap", several) == ({"kind": "linear_pair"}, None)
    with pytest.raises(UserError, match="none for modulus but several unlike ones: gap, energy"):
        target_head(keep, "modulus", several)


def test_among_several_other_heads_a_new_one_is_like_them():
    alike = {"gap": {"kind": "mlp"}, "energy": {"kind": "mlp"}}
    assert target_head(Strategy(), "modulus", alike) == ({"kind": "mlp"}, None)


@pytest.mark.parametrize("kept", [True, False])
def test_of_several_heads_one_is_kept_or_none(kept, make_network, initialise):
    source = initialise(make_network("gap", "gap_2"), 1)
    network, strategy = make_network("gap"), Strategy(head=None if kept else {"kind": "linear"})
    _, continued = target_head(strategy, "gap", {"gap": {}, "gap_2": {}})
    initial = initialise(network, 2)
    variables, report = transfer(source, initial, *transfer_rules("gap", continued))
    head, origin = variables["params"]["heads_gap"], (source if kept else initial)["params"]
    assert jax.tree.all(jax.tree.map(np.array_equal, head, origin["heads_gap"]))
    dropped = {fate.name for fate in report if fate.action == "dropped"}
    assert {name.split("/")[1] for name in dropped} == {"heads_gap_2"} | (
        set() if kept else {"heads_gap"}
    )
    parts = {"trunk", "heads_gap"} if kept else {"trunk"}
    assert copied_params(variables, report) == {part: variables["params"][part] for part in parts}


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="'all' is unknown; use one of all_layers, last_layer"):
        get_strategy("all")


def test_a_group_that_there_is_not_is_refused_by_name() -> None:
    """Whoever added a strategy and misspelt a group got a bare KeyError."""
    with pytest.raises(UserError, match="Group 'embeding' is unknown; use one of embedding, "):
        Groups(embedding=("atoms",)).patterns("embeding")
