"""A network of two layers and random crystals without bonds: all that training needs to know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.models.alignn import mean_over_atoms, published_decay_mask
from jaxmat.models.layers import Embedding, Linear
from jaxmat.training.losses import masked_loss, squared
from jaxmat.training.optimizers import make_optimizer

BatchMaker = Callable[..., CrystalBatch]


class Trunk(nn.Module):
    """Embeds elements and takes the mean over atoms."""

    width: int
    axis_name: str | None

    @nn.compact
    def __call__(self, batch, train):
        nodes = batch.crystals.nodes
        element = jax.nn.one_hot(nodes["atomic_number"], 12, dtype=nodes["count"].dtype)
        embedding = Embedding(self.width, self.axis_name, name="embedding")
        return mean_over_atoms(embedding(element, nodes["count"], train), batch)


class ToyNetwork(nn.Module):
    """A trunk with batch norm and one linear head for two properties."""

    width: int = 5
    axis_name: str | None = None

    def setup(self):
        self.trunk = Trunk(self.width, self.axis_name)
        self.heads_toy = Linear(2)

    def __call__(self, batch, train=False):
        return self.heads_toy(self.trunk(batch, train))


@pytest.fixture(scope="session")
def toy_network() -> type[ToyNetwork]:
    return ToyNetwork


@pytest.fixture(scope="session")
def network() -> ToyNetwork:
    return ToyNetwork()


@pytest.fixture(scope="session")
def make_batch() -> BatchMaker:
    def make(seed: int, crystals: int = 4, missing: float = 0.25, room: int = 4) -> CrystalBatch:
        """A batch that depends on the seed alone; `room` crystals fit in."""
        rng = np.random.default_rng(seed)
        target = rng.normal(size=(crystals, 2))
        target[rng.random(target.shape) < missing] = np.nan
        graphs = [_crystal(rng.integers(1, 12, size=rng.integers(1, 4))) for _ in range(crystals)]
        return batch_crystals(graphs, target, Shape(room + 1, 3 * room + 1, 1, 0))

    return make


def _crystal(atomic_number: np.ndarray) -> CrystalGraph:
    none = np.zeros(0, np.int32)
    sites = np.ones(len(atomic_number), np.int32)
    return CrystalGraph(atomic_number, sites, none, none, none, none, none, none, none, none)


@pytest.fixture(scope="session")
def variables(network, make_batch):
    return jax.jit(network.init)(jax.random.key(0), make_batch(0))


@pytest.fixture(scope="session")
def optimizer() -> optax.GradientTransformation:
    return make_optimizer(
        optax.constant_schedule(0.01), 0.9, weight_decay=0.01, decay_mask=published_decay_mask
    )


@pytest.fixture(scope="session")
def loss():
    return partial(masked_loss, elementwise=squared, average="properties")
