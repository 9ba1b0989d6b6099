from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pymatgen.core import Structure

from benchmarks import golden
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.models.network import CrystalNetwork, build_network


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def structures(golden_folder) -> list[Structure]:
    return list(golden.read_structures(golden_folder).values())


@pytest.fixture(scope="session")
def lone_atom() -> CrystalGraph:
    none = np.zeros(0, np.int32)
    return CrystalGraph(np.full(1, 18, np.int32), np.ones(1, np.int32), *[none] * 8)


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny() -> CrystalNetwork:
    """A network that compiles quickly."""
    trunk = {
        "kind": "alignn",
        "width": 6,
        "embedding_width": 4,
        "alignn_layers": 1,
        "gcn_layers": 1,
    }
    return build_network(trunk, {"gap": {"kind": "linear"}})


@pytest.fixture(scope="session")
def tiny_variables(tiny, lone_atom) -> dict[str, Any]:
    """Random weights; scales and running statistics are not those of the start either."""
    batch = batch_crystals([lone_atom], np.zeros((1, 1)), Shape(2, 2, 1, 0))
    variables = tiny.init(jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.3, leaf.shape), variables)
