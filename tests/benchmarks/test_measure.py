"""Our side of the throughput benchmark, on few crystals with a small network."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from pymatgen.core import Structure

from benchmarks import measure
from jaxmat.bundles.model import initial_variables
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.shapes import graph_sizes
from jaxmat.data.tables import read_table
from jaxmat.experiments import defaults
from jaxmat.models.network import build_network

TRUNK = {"kind": "alignn", "width": 6, "embedding_width": 4, "alignn_layers": 1, "gcn_layers": 0}


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return list(read_table("bundled:dielectric").structures[:6])


@pytest.fixture(scope="module")
def rows(structures) -> list[int]:
    """Sites, bonds and angles of all crystals."""
    return graph_sizes(list(build_graphs(structures, GraphSettings()))).sum(axis=0).tolist()


@pytest.mark.parametrize(
    "task, batch_size", [pytest.param("train", 6, marks=pytest.mark.slow), ("infer", 2)]
)
def test_a_turn_takes_each_crystal_once(task, batch_size, structures, rows):
    turn = measure.make_turn(structures, task, batch_size, GraphSettings().to_dict(), TRUNK)
    first, second = turn(), turn()
    for answer in (first, second):
        assert answer["structures"] == len(structures)
        assert answer["rows"] == rows  # no padding among them
        assert np.greater_equal(answer["padded_rows"], rows).all()
        assert 0 < answer["waiting_seconds"] < answer["seconds"]
        assert answer["shapes"] == 1 and answer["compile_seconds"] == first["compile_seconds"] > 0
    assert isinstance(turn, measure.Steps)
    if task == "train":
        assert int(turn._carry.step) == 1 + 2  # one before, for the only shape


def test_the_compiler_gets_the_options_of_the_device(monkeypatch, structures):
    """XLA stopped on a GPU, as it was given those for processors."""
    platforms = []
    monkeypatch.setattr(
        "jaxmat.training.parallel.compiler_options",
        lambda platform: platforms.append(platform) or {},
    )
    data = Dataset(list(build_graphs(structures[:1], GraphSettings())), np.zeros((1, 1)))
    network = build_network(TRUNK, {"property": {"kind": "linear"}})
    measure.training_step(network, initial_variables(network, data, 0), defaults.training())
    assert platforms == [jax.devices()[0].platform]


def test_a_turn_of_graphs_builds_all(structures, rows):
    answer = measure.make_turn(structures, "graphs", None, GraphSettings().to_dict(), TRUNK)()
    assert (answer["structures"], answer["rows"]) == (len(structures), rows)
    assert answer["seconds"] > 0
