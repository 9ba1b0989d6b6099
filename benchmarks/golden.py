"""The golden numbers, which the reference ALIGNN computed, and the same numbers from jaxmat.

A folder of golden numbers holds structures.json, graphs_canonical.npz and graphs_noncanonical.npz,
whose crystals are numbered alike, and state dicts and results as *.npz. tests/golden is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from pymatgen.core import Structure

from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.convert.state_dict import from_state_dict, torch_names
from jaxmat.crystals.compression import PlainGraph, find_classes
from jaxmat.crystals.graph import CrystalGraph, plain_graph
from jaxmat.crystals.neighbors import Bonds
from jaxmat.data.shapes import graph_sizes, place_shapes, smallest_shape
from jaxmat.models.alignn import published_decay_mask
from jaxmat.models.network import CrystalNetwork, build_network
from jaxmat.training.losses import Loss, absolute, masked_loss, squared
from jaxmat.training.optimizers import make_optimizer
from jaxmat.training.schedules import onecycle, onecycle_beta1
from jaxmat.training.state import TrainState, create_state
from jaxmat.training.step import make_train_step

Arrays = Mapping[str, np.ndarray]


class Model(NamedTuple):
    """A converted state dict.

    Attributes:
        network: heads are named by their numbers.
        variables: {"params", "batch_stats"}, float32.
        leaves: torch entry → leaf, such as "params/heads_0/out/kernel".
    """

    network: CrystalNetwork
    variables: dict[str, Any]
    leaves: dict[str, str]

    def cast(self, dtype: type) -> dict[str, Any]:
        """Returns the variables in a precision."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self.variables)

    def translate(self, results: Arrays, group: str) -> dict[str, np.ndarray]:
        """Returns the results "group/torch entry" by leaf; those of no leaf are left out."""
        found = {name: results.get(f"{group}/{name}") for name in self.leaves}
        return {self.leaves[name]: array.T for name, array in found.items() if array is not None}


class Recipe(NamedTuple):
    """How the published models of one kind are trained.

    Attributes:
        elementwise: loss of a residual; its mean is over all entries, missing ones included.
        weight_decay: of AdamW.
        rate: learning rate where no schedule sets it.
        onecycle_steps: length of the OneCycle schedule, or None for constant numbers.
    """

    elementwise: Callable[[jax.Array], jax.Array]
    weight_decay: float
    rate: float
    onecycle_steps: int | None = None

    def loss(self) -> Loss:
        """Returns numerators and denominators of the loss as a function of prediction and batch."""
        return partial(masked_loss, elementwise=self.elementwise, average="entries")

    def optimizer(self, trainable: Any = None) -> optax.GradientTransformation:
        """Returns AdamW with the published decay mask; `trainable` marks what is not frozen."""
        if self.onecycle_steps is None:
            rate, beta1 = optax.constant_schedule(self.rate), 0.9
        else:
            rate, beta1 = onecycle(1e-3, self.onecycle_steps), onecycle_beta1(self.onecycle_steps)
        return make_optimizer(
            rate,
            beta1,
            weight_decay=self.weight_decay,
            decay_mask=published_decay_mask,
            trainable=trainable,
        )


class Step(NamedTuple):
    """A training step.

    Attributes:
        loss: before the step.
        gradient: of the loss, by leaf.
        state: after the step.
    """

    loss: float
    gradient: dict[str, np.ndarray]
    state: TrainState


SINGLE = Recipe(squared, weight_decay=1e-5, rate=1e-3)
MULTI = Recipe(absolute, weight_decay=1e-2, rate=1e-4)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an *.npz file."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def read_structures(folder: Path) -> dict[int, Structure]:
    """Returns the structures of a folder of golden numbers by their numbers."""
    entries = json.loads((folder / "structures.json").read_text())
    return {
        entry.get("index", position): Structure(
            entry["atoms"]["lattice_mat"], entry["atoms"]["elements"], entry["atoms"]["coords"]
        )
        for position, entry in enumerate(entries)
    }


def read_bonds(graphs: Arrays, crystal: int) -> Bonds:
    """Returns the bonds of a crystal in a graph file, in the order of the file."""
    return Bonds(*(graphs[f"s{crystal}_{key}"] for key in ("src", "dst", "r64")))


def bond_order(bonds: Bonds) -> np.ndarray:
    """Returns the order of bonds by sites and vector; duplicates are interchangeable."""
    x, y, z = np.round(bonds.vector, 4).T + 0.0  # no negative zeros
    return np.lexsort((z, y, x, bonds.receiver, bonds.sender))


def same_bonds(one: Bonds, other: Bonds) -> bool:
    """Whether two crystals have the same bonds, as often, with vectors equal to 1e-6 Å."""
    if len(one.sender) != len(other.sender):
        return False
    one, other = (Bonds(*(x[bond_order(bonds)] for x in bonds)) for bonds in (one, other))
    return (
        np.array_equal(one.sender, other.sender)
        and np.array_equal(one.receiver, other.receiver)
        and np.allclose(one.vector, other.vector, rtol=0, atol=1e-6)
    )


def same_angles(graphs: Arrays, crystal: int, bonds: Bonds, angles: PlainGraph) -> bool:
    """Whether the angles between these bonds are those of a graph file, cosines to 1e-9."""
    expected = (graphs[f"s{crystal}_{key}"] for key in ("lsrc", "ldst", "cos64"))
    found = (angles.angle_sender, angles.angle_receiver, angles.angle_cosine)
    pairs, cosines = zip(
        _sorted_angles(read_bonds(graphs, crystal), *expected),
        _sorted_angles(bonds, *found),
        strict=True,
    )
    return np.array_equal(*pairs) and np.allclose(*cosines, rtol=0, atol=1e-9)


def _sorted_angles(
    bonds: Bonds, sender: np.ndarray, receiver: np.ndarray, cosine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ranks of the two bonds of each angle, in their order, and the cosines."""
    rank = np.argsort(bond_order(bonds))
    order = np.lexsort((rank[receiver], rank[sender]))
    return np.stack([rank[sender], rank[receiver]])[:, order], cosine[order]


def golden_crystals(graphs: Arrays) -> list[CrystalGraph]:
    """Returns all crystals of a graph file, not compressed."""
    crystals: list[CrystalGraph] = []
    while f"s{len(crystals)}_z" in graphs:
        number, bonds = graphs[f"s{len(crystals)}_z"], read_bonds(graphs, len(crystals))
        order = np.argsort(bonds.receiver, kind="stable")
        bonds = Bonds(*(x[order] for x in bonds))
        plain = plain_graph([number], [bonds], line_graph_selves=False)
        one_site, one_bond, one_angle = (
            np.ones(len(rows), np.int32) for rows in (number, bonds.sender, plain.angle_sender)
        )
        crystals.append(
            CrystalGraph(
                *(plain.atomic_number, one_site),
                *(plain.bond_sender, plain.bond_receiver, plain.bond_length, one_bond),
                *(plain.angle_sender, plain.angle_receiver, plain.angle_cosine, one_angle),
            )
        )
    return crystals


def levelled(crystal: CrystalGraph, tolerance: float) -> CrystalGraph:
    """Returns a crystal that is not compressed with each length and cosine the mean of its class.

    Coordinates are given to six decimals, so those of equivalent bonds differ a little, and a
    batch norm over a few nearly equal rows enlarges what differs. Between this crystal and the
    compressed one nothing but the weights differs.
    """
    classes = find_classes(
        PlainGraph(
            site_crystal=np.zeros(len(crystal.atomic_number), np.int64),
            atomic_number=crystal.atomic_number,
            bond_sender=crystal.bond_sender,
            bond_receiver=crystal.bond_receiver,
            bond_length=crystal.bond_length,
            angle_sender=crystal.angle_sender,
            angle_receiver=crystal.angle_receiver,
            angle_cosine=crystal.angle_cosine,
        ),
        tolerance,
    )

    def mean(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (np.bincount(labels, weights=values) / np.bincount(labels))[labels]

    return crystal._replace(
        bond_length=mean(crystal.bond_length, classes.bond),
        angle_cosine=mean(crystal.angle_cosine, classes.angle),
    )


def read_model(file: Path) -> Model:
    """Returns the model whose state dict is in an *.npz file."""
    arrays = read_arrays(file)
    heads = {name.split(".")[1] for name in arrays if name.startswith("fc_out.")} or {"0"}
    converted = from_state_dict(arrays, sorted(heads))
    names = torch_names(flat(converted.variables), converted.heads)
    return Model(
        network=build_network(converted.trunk, converted.heads),
        variables=converted.variables,
        leaves={name: leaf for leaf, name in names.items()},
    )


def together(crystals: Sequence[CrystalGraph], target: np.ndarray) -> CrystalBatch:
    """Returns one batch of all crystals, float64, with targets [crystals, properties]."""
    sites, bonds, angles = graph_sizes(crystals).sum(axis=0).tolist()
    shape = Shape(len(crystals) + 1, sites + 1, bonds + 1, angles)
    return batch_crystals(crystals, target, shape, np.float64)


def alone(crystals: Sequence[CrystalGraph], target: np.ndarray) -> Iterator[CrystalBatch]:
    """Yields each crystal as a batch of its own, float64, of one of four shapes."""
    sizes = graph_sizes(crystals)
    shapes = place_shapes(sizes, crystals=1, most=4)
    for i, crystal in enumerate(crystals):
        shape = smallest_shape(shapes, sizes[i])
        yield batch_crystals([crystal], target[i : i + 1], shape, np.float64)


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of nested dicts by their paths."""
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the greatest difference, relative to the greatest entry where that is above 1.

    It is infinite where shapes differ or something is not finite.
    """
    if np.shape(found) != np.shape(expected):
        return np.inf
    error = float(np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected))))
    return error if np.isfinite(error) else np.inf


def evaluate(network: CrystalNetwork, variables: Any, batch: CrystalBatch) -> dict[str, Any]:
    """Returns predictions, gradients and running statistics, in evaluation and in training."""

    def loss(params: Any, train: bool) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        output, updated = network.apply(
            variables | {"params": params}, batch, train=train, mutable="batch_stats"
        )
        numerators, denominators = SINGLE.loss()(output, batch)
        value = jnp.sum(numerators / denominators)
        return value, (output * batch.crystal_mask[:, None], updated)

    gradient = jax.grad(loss, has_aux=True)
    eval_gradient, (eval_output, _) = gradient(variables["params"], False)
    train_gradient, (train_output, updated) = gradient(variables["params"], True)
    return {
        "evaluation, predictions": eval_output,
        "evaluation, gradients": eval_gradient,
        "training, predictions": train_output,
        "training, gradients": train_gradient,
        "training, running statistics": updated,
    }


def train(
    model: Model, batch: CrystalBatch, recipe: Recipe, steps: int, trainable: Any = None
) -> Iterator[Step]:
    """Yields training steps on one batch, float64."""
    recorder = optax.trace(decay=0.0)  # passes gradients on; its state is the last of them
    optimizer = optax.chain(recorder, recipe.optimizer(trainable))
    state = create_state(model.cast(np.float64), optimizer, ema=False)
    step = jax.jit(make_train_step(model.network, optimizer, recipe.loss(), trainable=trainable))
    for _ in range(steps):
        state, metrics = step(state, batch)
        yield Step(float(metrics["loss"]), flat({"params": state.opt_state[0].trace}), state)
