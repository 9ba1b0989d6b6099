"""A model: a network, its weights, and all that is needed to use them on a structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.batches import Dataset, graph_sizes, prediction_batches
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.models.network import CrystalNetwork, build_network
from jaxmat.training.checkpoints import load_variables
from jaxmat.training.step import make_predict_step

_FORMAT = 1


@dataclass(frozen=True)
class Model:
    """A network and how it is fed and read; `describe` is what a checkpoint keeps of it.

    Attributes:
        trunk: options of the trunk.
        heads: property → options of its head.
        graph: how structures become graphs.
        transforms: property → unit and scaling.
    """

    trunk: Mapping[str, Any]
    heads: Mapping[str, Mapping[str, Any]]
    graph: GraphSettings
    transforms: Mapping[str, TargetTransform]

    def network(self) -> CrystalNetwork:
        """Returns the network."""
        return build_network(self.trunk, self.heads)

    def describe(self) -> dict[str, Any]:
        """Returns plain values that `Model.from_description` reads."""
        return {
            "format": _FORMAT,
            "trunk": dict(self.trunk),
            "heads": {name: dict(options) for name, options in self.heads.items()},
            "graph": self.graph.to_dict(),
            "transforms": {name: t.to_dict() for name, t in self.transforms.items()},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Model:
        """Returns the model that a checkpoint describes.

        Raises:
            UserError: written by a later version.
        """
        if description.get("format") != _FORMAT:
            raise UserError(
                f"The checkpoint has format {description.get('format')}, this version of jaxmat "
                f"reads format {_FORMAT}; use the version that wrote it."
            )
        return cls(
            trunk=description["trunk"],
            heads=description["heads"],
            graph=GraphSettings(**description["graph"]),
            transforms={
                name: TargetTransform.from_dict(t) for name, t in description["transforms"].items()
            },
        )


def load_model(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """Reads a model from a run directory or a checkpoint.

    Returns:
        The model and its variables {"params", "batch_stats"}.

    Raises:
        UserError: no checkpoint there, or not a readable one.
    """
    variables, description = load_variables(path)
    return Model.from_description(description), variables


def initial_variables(network: CrystalNetwork, data: Dataset, seed: int) -> dict[str, Any]:
    """Returns random variables of a network, which depend on nothing but the seed.

    Args:
        network: the network.
        data: any crystals; only the shapes of their features matter.
        seed: of the random numbers.
    """
    sites, bonds, angles = (graph_sizes(data.graphs[:1])[0] + 1).tolist()
    batch = batch_crystals(data.graphs[:1], data.target[:1], Shape(2, sites, bonds, angles))
    return dict(jax.jit(network.init)(jax.random.key(seed), batch))


class Predictor:
    """Predicts data sets with changing variables; batches and programs are made once."""

    def __init__(self, network: CrystalNetwork, batch_size: int = 64) -> None:
        """Prepares the program.

        Args:
            network: the network.
            batch_size: crystals of a batch on average.
        """
        self._step = jax.jit(make_predict_step(network))
        self._properties = len(network.head_options)
        self._batch_size = batch_size

    def __call__(self, variables: dict[str, Any], data: Dataset) -> np.ndarray:
        """Returns scaled predictions, [crystals, properties]."""
        result = np.full((len(data.graphs), self._properties), np.nan)
        for indices, shape in prediction_batches(graph_sizes(data.graphs), self._batch_size):
            chosen = data.take(indices)
            batch = batch_crystals(chosen.graphs, chosen.target, shape)
            result[indices] = np.asarray(self._step(variables, batch))[: len(indices)]
        return result
