"""The benchmark of graphs on a few crystals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import graphs
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.shapes import graph_sizes
from jaxmat.data.tables import read_table


@pytest.mark.parametrize("kind", graphs.KINDS)
def test_mean_sizes_are_those_of_the_graphs(kind):
    structures = read_table("bundled:dielectric").structures[:5]
    settings = graphs.KINDS[kind]
    result = graphs.measure(structures, settings)
    plain = GraphSettings(settings.neighbor_rule, canonical=settings.canonical, compress=False)
    for name, one in (("plain", plain), ("compressed", settings)):
        expected = np.mean(graph_sizes(list(build_graphs(structures, one))), axis=0)
        assert list(result[name].values()) == pytest.approx(expected.tolist())
    assert result["crystals"] == 5
    assert result["together"]["seconds"] > 0 < result["alone"]["cpu_seconds"]
