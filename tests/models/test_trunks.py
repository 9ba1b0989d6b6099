"""The contract of a trunk: what holds for every kind, and for one that nothing knows but a test."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Lattice, Structure

from benchmarks import golden
from benchmarks.invariance import REWRITES
from jaxmat.bundles.bundle import load
from jaxmat.bundles.describe import describe
from jaxmat.bundles.embed import embed
from jaxmat.bundles.model import Model, variable_shapes
from jaxmat.bundles.predict import predict
from jaxmat.crystals.elements import standard_properties
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.tables import read_table
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.models import network as registry
from jaxmat.models.elements import ElementFeatures
from jaxmat.models.layers import Linear, receive
from jaxmat.models.network import TRUNKS, build_network, make_trunk
from jaxmat.models.trunk import Groups, Trunk, mean_over_atoms
from jaxmat.transfer.strategies import STRATEGIES

from .conftest import TINY

HEADS = {"gap": {"kind": "linear"}}
FEATURES = ("table", "properties", "embedding", "table+properties+embedding")
OPTIONS = {
    "cogn": [{"element_features": features} for features in FEATURES]
    + [{"layer_norm": True, "sum_bonds": True}],
    "alignn": [{"element_features": features} for features in FEATURES] + [{"pool_bonds": True}],
}
EVERY = [(kind, options) for kind in OPTIONS for options in OPTIONS[kind]]


class Toy(Trunk):
    """Twenty lines: each site adds what it hears from its neighbours."""

    width: int = 4
    rounds: int = 2
    needs_angles: ClassVar[bool] = False

    def groups(self):
        layers = tuple(f"layers_{i}" for i in range(self.rounds))
        return Groups(embedding=("atoms",), two_body=layers, blocks=layers)

    @nn.compact
    def __call__(self, batch, train):
        graph = batch.crystals
        features = ElementFeatures(self.element_features, self.width)
        x = Linear(self.width, name="atoms")(features(graph.nodes["atomic_number"]))
        for i in range(self.rounds):
            heard = x[graph.senders] * jnp.exp(-graph.edges["length"])[:, None]
            heard = receive(heard * graph.edges["multiplicity"][:, None], graph.receivers, len(x))
            x = nn.silu(x + Linear(self.width, name=f"layers_{i}")(heard))
        return mean_over_atoms(x, batch)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TRUNKS, "toy", Toy)


def small(config: ConfigDict) -> ConfigDict:
    return defaults.variant(config, "smoke")


def test_a_toy_trunk_is_trained_tuned_and_told_about(toy, tmp_path: Path):
    """Nothing but the registry is told of it."""
    scratch = defaults.scratch(path="bundled:dielectric", target="poly_total", unit="1")
    scratch.network.trunk.kind, scratch.network.trunk.rounds = "toy", 3
    assert run(small(scratch), tmp_path / "source")
    source = load(tmp_path / "source")
    assert source.model.trunk["rounds"] == 3 and source.variables["batch_stats"] == {}
    assert not source.model.graph.angles
    text = describe(source)
    assert "two-body" in text and "three-body" not in text and "\n| other " not in text

    tuning = defaults.finetune(path="bundled:piezoelectric", target="eij_max", unit="C/m^2")
    tuning = small(tuning)
    tuning.start_from = str(tmp_path / "source")
    for strategy in ("new_head_still", "soup"):
        tuning.strategy = strategy
        assert run(tuning, tmp_path / strategy)
    trunks = [load(tmp_path / name).variables["params"]["trunk"] for name in ("source", "soup")]
    frozen = load(tmp_path / "new_head_still").variables["params"]["trunk"]
    assert jax.tree.all(jax.tree.map(np.array_equal, trunks[0], frozen))
    assert not jax.tree.all(jax.tree.map(np.array_equal, *trunks))
    tuning.strategy = "three_body"
    with pytest.raises(UserError, match="'three_body' is not for .* no three_body parameters"):
        run(tuning, tmp_path / "three_body")


def is_about_angles(strategy: str) -> bool:
    return "three_body" in STRATEGIES[strategy].needs


@pytest.mark.slow
def test_a_toy_trunk_knows_every_strategy_and_every_kind_of_devices(toy, tmp_path: Path):
    scratch = defaults.scratch(path="bundled:dielectric", target="poly_total", unit="1")
    scratch.network.trunk.kind = "toy"
    scratch, results = small(scratch), {}
    for devices in ("one", "pmap", "shard_map"):
        scratch.training.devices = devices
        results[devices] = run(scratch, tmp_path / devices)
        assert results[devices]["test_mae"] == pytest.approx(results["one"]["test_mae"], rel=1e-5)
    crystals = read_table("bundled:dielectric").structures[:5]
    rows = [row for row in predict(tmp_path / "pmap", crystals) if not row.reason]
    assert rows and embed(tmp_path / "pmap", crystals)["vector"].shape == (len(rows), 16)

    tuning = small(defaults.finetune(path="bundled:piezoelectric", target="eij_max", unit="C/m^2"))
    tuning.start_from, tuning.population = str(tmp_path / "one"), 2
    for strategy in STRATEGIES:
        tuning.strategy = strategy
        if is_about_angles(strategy):
            with pytest.raises(UserError, match="no three_body parameters"):
                run(tuning, tmp_path / strategy)
        else:
            result = run(tuning, tmp_path / strategy)
            assert result["seeds"] == [0, 1] and np.isfinite(result["test_mae_by_seed"]).all()


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_each_parameter_is_in_one_group_and_each_block_in_one_order(kind, options):
    trunk = {"kind": kind, **TINY[kind], **options}
    shapes = variable_shapes(build_network(trunk, HEADS))
    names = [name.partition("/")[2] for name in shapes if "/trunk/" in name]
    groups = make_trunk(trunk).groups()
    parts = groups.present()
    for name in names:
        owners = [
            group
            for group, starts in parts.items()
            if any(re.match(start, name) for start in starts)
        ]
        assert len(owners) == 1, name
    every = [start for starts in parts.values() for start in starts]
    for start in [*every, *groups.patterns("blocks"), *groups.patterns("atom_embedding")]:
        assert any(re.match(start, name) for name in names), start
    blocks = [name for name in names if any(re.match(p, name) for p in groups.patterns("blocks"))]
    bodies = [p for group in ("two_body", "three_body") for p in groups.patterns(group)]
    assert blocks == [name for name in names if any(re.match(p, name) for p in bodies)]


def test_every_registered_trunk_is_tested_here():
    # The one without parameters has tests of its own, in tests/experiments/test_closed_form.py.
    assert OPTIONS.keys() == TINY.keys() == TRUNKS.keys() - {"descriptors"}
    for kind, trunk in TRUNKS.items():
        assert isinstance(make_trunk({"kind": kind}), trunk)


@pytest.mark.parametrize("features", ["", "tables", "table+", "table+table", "table,embedding"])
def test_element_features_that_are_not_there_are_refused(features):
    with pytest.raises(UserError, match="give one or several of table, properties, embedding"):
        build_network({"kind": "cogn", "element_features": features}, HEADS)


def test_properties_alone_tell_nothing_of_an_element_but_its_properties():
    """And what two features say stands side by side."""
    module = ElementFeatures("properties+embedding", 3)
    numbers = jnp.array([1, 8, 8])
    variables = module.init(jax.random.key(0), numbers)
    found = module.apply(variables, numbers)
    assert found.shape == (3, 19 + 3)
    np.testing.assert_array_equal(found[:, :19], standard_properties()[[1, 8, 8]])
    np.testing.assert_array_equal(found[:, 19:], variables["params"]["embedding"][numbers])
    assert "params" not in ElementFeatures("table+properties", 3).init(jax.random.key(0), numbers)


def test_a_model_whose_trunk_needs_angles_cannot_have_graphs_without():
    heads, transforms = (
        HEADS,
        {"gap": TargetTransform("gap", "eV", log=False, offset=0.0, scale=1.0)},
    )
    trunk = {"kind": "alignn", **TINY["alignn"]}
    description = Model(trunk, heads, GraphSettings(), transforms).describe()
    assert Model.from_description(description).graph.angles
    del description["graph"]["angles"]  # written before there was a choice
    assert Model.from_description(description).graph == GraphSettings()
    description["graph"]["angles"] = False
    with pytest.raises(UserError, match="'alignn' needs angles, but its graphs have none"):
        Model.from_description(description)


def crystals(element: str) -> list[Structure]:
    """Polymorphs: simple cubic, body-centred and face-centred, at the same distance."""
    d = 2.6
    return [
        Structure(Lattice.cubic(d), [element], [[0, 0, 0]]),
        Structure(Lattice.cubic(d * 2 / 3**0.5), [element] * 2, [[0, 0, 0], [0.5] * 3]),
        Structure(
            Lattice.cubic(d * 2**0.5),
            [element] * 4,
            [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "options", "sees"),
    [
        ("alignn", {}, False),
        ("alignn", {"pool_bonds": True}, True),
        ("cogn", {}, True),
    ],
)
def test_who_tells_the_polymorphs_of_an_element_apart(kind, options, sees, float64):
    """The published network does not: all neighbours are alike, so its gates cancel.

    A gate σ of each sender weights the sender's value v, and the weights are normalised:
    Σ σ v / (Σ σ + 1e-6) is v whatever σ is, but for the 1e-6.
    """
    trunk = {"kind": kind, **TINY[kind], **options}
    network = build_network(trunk, HEADS)
    assert make_trunk(trunk).tells_polymorphs_apart() == sees
    settings = GraphSettings(angles=make_trunk(trunk).needs_angles)
    graphs = list(build_graphs([*crystals("C"), *crystals("Cs")], settings))
    batch = golden.together(graphs, np.zeros((len(graphs), 1)))
    variables = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), network.init(jax.random.key(0), batch)
    )
    found = np.asarray(network.apply(variables, batch))[:-1, 0]
    for element in (found[:3], found[3:]):
        assert (np.ptp(element) > 1e-4) == sees
        assert sees or np.ptp(element) < 1e-6
    assert abs(found[0] - found[3]) > 1e-3


@pytest.mark.parametrize("kind", ["cogn", pytest.param("alignn", marks=pytest.mark.slow)])
def test_200_crystals_written_in_another_way_have_the_same_vectors(kind, float64):
    trunk = make_trunk({"kind": kind, **TINY[kind], "element_features": "properties+embedding"})
    crystals = read_table("bundled:dielectric").structures[:400]
    written = [crystal for crystal in crystals if len(crystal) <= 8][:200]
    assert len(written) == 200
    settings = GraphSettings(angles=trunk.needs_angles)

    def vectors(structures: list[Structure]) -> np.ndarray:
        graphs = list(build_graphs(structures, settings))
        batch = golden.together(graphs, np.zeros((len(graphs), 1)))
        return np.asarray(trunk.apply(variables, batch, False))[:-1]

    first = golden.together(list(build_graphs(written[:1], settings)), np.zeros((1, 1)))
    variables = trunk.init(jax.random.key(0), first, False)
    expected, rng = vectors(written), np.random.default_rng(3)
    assert np.std(expected, axis=0).min() > 1e-4
    found = vectors([REWRITES[i % len(REWRITES)](s, rng) for i, s in enumerate(written)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_graphs_without_angles_are_those_with_but_for_angles(structures):
    """Not compressed; compressed they may have fewer classes, as cosines tell nothing apart."""
    for settings in (GraphSettings(compress=False), GraphSettings("reference", compress=False)):
        without = build_graphs(structures, replace(settings, angles=False))
        for one, other in zip(build_graphs(structures, settings), without, strict=True):
            for name, left, right in zip(one._fields, one, other, strict=True):
                if name.startswith("angle"):
                    assert not len(right) and right.dtype == left.dtype
                else:
                    np.testing.assert_array_equal(left, right, err_msg=name)
    both = (build_graphs(structures, GraphSettings(angles=angles)) for angles in (True, False))
    for one, other in zip(*both, strict=True):
        assert len(other.bond_length) <= len(one.bond_length)
