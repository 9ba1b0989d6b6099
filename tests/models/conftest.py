from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from pymatgen.core import Structure

from benchmarks import golden
from jaxmat.models.network import CrystalNetwork, build_network


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def structures(golden_folder) -> list[Structure]:
    return list(golden.read_structures(golden_folder).values())


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny() -> CrystalNetwork:
    """The smallest network with every kind of layer and head: quick to compile."""
    trunk = {"kind": "alignn", "width": 6, "embedding_width": 4, "alignn_layers": 1, "gcn_layers": 1}
    heads = {"gap": {"kind": "linear"}, "bulk": {"kind": "mlp", "hidden_layers": 1, "width": 5}}
    return build_network(trunk, heads)


@pytest.fixture(scope="session")
def tiny_variables(tiny) -> dict:
    """Random weights, and running statistics and scales that are not those of the start."""
    empty = golden.golden_crystals({"s0_z": np.ones(1, int), **EMPTY_BONDS})
    variables = tiny.init(jax.random.key(0), golden.together(empty, np.zeros((1, 2))))
    rng = np.random.default_rng(0)
    jitter = jax.tree.map(lambda leaf: np.asarray(leaf * rng.uniform(0.5, 1.5, leaf.shape)), variables)
    return jitter


EMPTY_BONDS = {
    "s0_src": np.zeros(0, int),
    "s0_dst": np.zeros(0, int),
    "s0_r64": np.zeros((0, 3)),
}
