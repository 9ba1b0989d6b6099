from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from pymatgen.core import Structure

from benchmarks import golden
from jaxmat.batch import Shape, batch_crystals
from jaxmat.bundles.model import variable_shapes
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.models.network import CrystalNetwork, build_network, make_trunk

# Room for any few of the crystals, compressed or not.
_USUAL_SHAPE = Shape(7, 96, 1024, 24576)


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


# Of every kind one that compiles quickly.
TINY = {
    "cogn": {"width": 6, "layers": 2},
    "alignn": {"width": 6, "embedding_width": 4, "alignn_layers": 1, "gcn_layers": 1},
}


@pytest.fixture(
    scope="session", params=["cogn", pytest.param("alignn", marks=pytest.mark.slow)], ids=str
)
def tiny(request: pytest.FixtureRequest) -> CrystalNetwork:
    """Each of the small networks in turn."""
    return build_network(
        {"kind": request.param, **TINY[request.param]}, {"gap": {"kind": "linear"}}
    )


@pytest.fixture(scope="session")
def angles(tiny) -> bool:
    """Whether the network's graphs have angles."""
    return make_trunk(tiny.trunk_options).needs_angles


@pytest.fixture(scope="session")
def tiny_variables(tiny) -> dict[str, Any]:
    """Random weights; scales and running statistics are random too, variances positive."""
    rng = np.random.default_rng(0)
    leaves = {
        path: rng.normal(scale=shape[0] ** -0.5, size=shape)
        if path.endswith("/kernel")
        else rng.uniform(0.5, 1.5, size=shape)
        for path, shape in variable_shapes(tiny).items()
    }
    return {"batch_stats": {}, **unflatten_dict(leaves, sep="/")}


@pytest.fixture(scope="session")
def evaluate(tiny, tiny_variables) -> Callable[..., dict[str, Any]]:
    """What the tiny network makes of crystals in float64; the usual shape is compiled once."""
    run = jax.jit(partial(golden.evaluate, tiny))

    def evaluate(crystals: Sequence[CrystalGraph], shape: Shape = _USUAL_SHAPE) -> dict[str, Any]:
        target = np.arange(float(len(crystals)))[:, None]
        with jax.enable_x64(True):
            return run(tiny_variables, batch_crystals(crystals, target, shape, np.float64))

    return evaluate
