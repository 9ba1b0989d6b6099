"""A small ALIGNN, and batches of small crystals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from pymatgen.core import Lattice, Structure

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.bundles.model import variable_shapes
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.models.network import CrystalNetwork, build_network

# Equal widths make few shapes, for which each operation is compiled once.
TRUNK = {"kind": "alignn", "alignn_layers": 1, "gcn_layers": 1} | dict.fromkeys(
    ("width", "embedding_width", "bond_bins", "angle_bins"), 4
)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., CrystalNetwork]:
    def make(*properties: str, **head: Any) -> CrystalNetwork:
        return build_network(TRUNK, {name: head or {"kind": "linear"} for name in properties})

    return make


@pytest.fixture(scope="session")
def batches() -> list[CrystalBatch]:
    """Three batches of three crystals of one shape."""
    rng = np.random.default_rng(0)
    elements = ("Li", "Na", "Mg", "Al", "Cl", "Br", "O", "S", "Ti")
    structures = [
        Structure(
            Lattice.cubic(rng.uniform(3.0, 5.0)),
            rng.choice(elements, 2, replace=False),
            [[0, 0, 0], [0.5, 0.5, rng.uniform(0.4, 0.5)]],
        )
        for _ in range(9)
    ]
    graphs = list(build_graphs(structures, GraphSettings()))
    target = rng.normal(size=(9, 1))
    rows = [max(len(graph[i]) for graph in graphs) for i in (0, 2, 6)]
    shape = Shape(4, *(3 * size + 1 for size in rows))
    return [batch_crystals(graphs[i : i + 3], target[i : i + 3], shape) for i in (0, 3, 6)]


@pytest.fixture(scope="session")
def initialise() -> Callable[[CrystalNetwork, int], dict[str, Any]]:
    def initialise(network: CrystalNetwork, seed: int) -> dict[str, Any]:
        """Random variables, none of them zero and variances positive."""
        rng = np.random.default_rng(seed)
        leaves = {
            name: np.float32(rng.uniform(0.5, 1.5, shape) / np.prod(shape[:-1]))
            for name, shape in variable_shapes(network).items()
        }
        return unflatten_dict(leaves, sep="/")

    return initialise
