"""A model: a network, its weights, and all that is needed to use them on a structure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.extend.core import jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph, GraphSettings
from jaxmat.data.batches import Dataset
from jaxmat.data.shapes import equal_batches, graph_sizes
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.models.network import CrystalNetwork, build_network, make_trunk
from jaxmat.models.trunk import Groups
from jaxmat.runtime.stopping import give_up_if_told
from jaxmat.training.feeding import AHEAD, delayed, made_ahead
from jaxmat.training.sending import of_sent, send
from jaxmat.training.step import make_predict_step

# 1: intervals of one width for all crystals; 2: not what crystals it has seen; 3: processes do not
# know where they were wrong.
_FORMAT = 4
_MOST_NUMBERS = 10**9  # of a network; 4 GB


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

    def network(self, **computation: Any) -> CrystalNetwork:
        """Returns the network.

        Args:
            **computation: how it is computed, see `jaxmat.models.network.build_network`.
        """
        return build_network(self.trunk, self.heads, **computation)

    def groups(self) -> Groups:
        """Returns the names of the parts of the trunk's parameters."""
        return make_trunk(self.trunk).groups()

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
            UserError: written by a newer version, or not what `describe` returns.
        """
        version = description.get("format")
        if isinstance(version, int) and version > _FORMAT:
            raise UserError(
                f"The model was written by a newer jaxmat (format {version}; this one reads up to "
                f"{_FORMAT}): update jaxmat."
            )
        if version not in range(1, _FORMAT + 1) or isinstance(version, bool):
            raise UserError(f"This is not the description of a model: its format is {version!r}.")
        parts = ("trunk", "heads", "graph", "transforms")
        if wrong := [name for name in parts if not isinstance(description.get(name), Mapping)]:
            raise UserError(
                f"This is not the description of a model: {', '.join(wrong)} missing, or no object."
            )
        trunk, heads, graph, transforms = (description[name] for name in parts)
        for name, options in [*heads.items(), *transforms.items()]:
            if not isinstance(options, Mapping):
                raise UserError(f"The description of the model has no object for {name!r}.")
        if heads.keys() != transforms.keys():
            raise UserError(
                f"The description of the model has heads for {', '.join(heads)}, but scaling for "
                f"{', '.join(transforms)}."
            )
        scaling = {name: TargetTransform.from_dict(one) for name, one in transforms.items()}
        if others := [name for name, one in scaling.items() if one.name != name]:
            raise UserError(
                f"The scaling of {others[0]} is that of another property, {scaling[others[0]].name}"
            )
        settings = GraphSettings.from_dict(graph)
        if make_trunk(trunk).needs_angles and not settings.angles:
            raise UserError(
                f"The model's trunk {trunk['kind']!r} needs angles, but its graphs have none."
            )
        return cls(
            trunk=dict(trunk),
            heads={name: dict(options) for name, options in heads.items()},
            graph=settings,
            transforms=scaling,
        )


def variable_shapes(network: CrystalNetwork) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's variables, which are float32.

    Args:
        network: the network.

    Returns:
        Name, such as "params/trunk/atom_embedding/linear/kernel", to shape.

    Raises:
        UserError: there is no such network, or none of a size that can be used.
    """
    none = np.zeros(0, np.int32)
    atom = CrystalGraph(np.ones(1, np.int32), np.ones(1, np.int32), *[none] * 8)
    batch = batch_crystals([atom], np.zeros((1, len(network.head_options))), Shape(2, 2, 1, 0))
    try:
        variables = jax.eval_shape(lambda: network.init(jax.random.key(0), batch))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UserError("There is no such network: its sizes do not fit together") from error
    shapes = {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
    numbers = sum(map(math.prod, shapes.values()))
    if numbers > _MOST_NUMBERS:
        raise UserError(
            f"There is no such network: it would have {numbers:,} weights, and {_MOST_NUMBERS:,} "
            "is the most that is read"
        )
    return shapes


def initial_variables(network: CrystalNetwork, data: Dataset, seed: int) -> dict[str, Any]:
    """Returns random {"params", "batch_stats"} of a network, which depend on the seed alone.

    Args:
        network: the network.
        data: any crystals; only the shapes of their features matter.
        seed: of the random numbers.
    """
    sites, bonds, angles = (graph_sizes(data.graphs[:1])[0] + 1).tolist()
    batch = batch_crystals(data.graphs[:1], data.target[:1], Shape(2, sites, bonds, angles))
    inputs = jax.random.key(seed), batch
    program, variables = jax.make_jaxpr(network.init, return_shape=True)(*inputs)
    # Operation by operation, and only those that the variables depend on: as one program, with a
    # draw of its own for each of a hundred leaves, XLA would take longer than for a training step.
    needed, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
    leaves = jaxpr_as_fun(program.replace(jaxpr=needed))(*jax.tree.leaves(inputs))
    found = jax.tree.unflatten(jax.tree.structure(variables), leaves)
    return {"params": found["params"], "batch_stats": found.get("batch_stats", {})}


class Predictor:
    """Predicts data sets with changing variables; programs are made once."""

    def __init__(
        self,
        network: CrystalNetwork,
        step: Callable[[dict[str, Any], CrystalBatch], jax.Array] | None = None,
        columns: int | None = None,
    ) -> None:
        """Prepares the program.

        Args:
            network: the network.
            step: what is computed of a batch, [crystals, columns]; None: scaled predictions.
            columns: of it; None: one for each property.
        """
        self._step = jax.jit(of_sent(step or make_predict_step(network)))
        self._columns = columns or len(network.head_options)
        self._shapes: list[Shape] = []

    def __call__(self, variables: dict[str, Any], data: Dataset) -> np.ndarray:
        """Returns scaled predictions, [crystals, properties], or what else the step computes."""
        result = np.full((len(data.graphs), self._columns), np.nan)
        members, shape = self._divide(data)
        variables = jax.device_put(variables)
        made = (send(data.batch(indices, shape)) for indices in members)
        with made_ahead(made) as batches:
            computed = (self._step(variables, batch) for batch in batches)
            outputs = delayed(computed, AHEAD)
            for indices, output in zip(members, outputs, strict=True):
                give_up_if_told()
                result[indices] = np.asarray(output)[: len(indices)]
        return result

    def foresee(self, several: Iterable[Dataset]) -> None:
        """Chooses the shapes of data sets, the same in whatever order they are predicted.

        The last digits of a prediction depend on the shape of its batch.
        """
        for data in several:
            self._divide(data)

    def _divide(self, data: Dataset) -> tuple[list[np.ndarray], Shape]:
        """Returns the crystals of batches, and their shape; see `equal_batches`."""
        members, shape = equal_batches(graph_sizes(data.graphs), self._shapes)
        if shape not in self._shapes:
            self._shapes.append(shape)
        return members, shape
