"""Trains a small network in several layouts on 8 devices; prints what came out as JSON.

Run by test_parallel.py in a process of its own, because the number of devices is fixed when JAX
starts.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np

from jaxmat.bundles.model import initial_variables
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.batches import Dataset, TrainingBatches
from jaxmat.data.order import Order
from jaxmat.experiments.defaults import training
from jaxmat.experiments.recipe import Constants, Recipe
from jaxmat.models.network import build_network
from jaxmat.models.trunk import Groups
from jaxmat.training.parallel import Placement, choose_placement
from jaxmat.transfer.strategies import Strategy

# Steps of 8, 8 and 3 crystals: of 8 devices five have none at every third step.
CRYSTALS, BATCH_SIZE, STEPS = 19, 8, 21
RATES = (3e-3, 1e-3, 1e-2, 2e-3)
TRUNKS = {
    "alignn": {"width": 8, "embedding_width": 8, "alignn_layers": 1, "gcn_layers": 1},
    "cogn": {"width": 8, "layers": 2},
}
DEVICES = {"one": 1, "pmap 2": 2, "pmap 8": 8, "shard_map 2": 2, "shard_map 8": 8}
# Each number of devices once with each of the two ways.
CASES = {
    "float64": ("one", "pmap 8", "shard_map 2"),
    "float32": ("one", "pmap 2", "shard_map 8"),
}


def main(kind: str) -> None:
    """Prints the numbers of all cases, by precision and name."""
    assert jax.device_count() == 8
    network = build_network({"kind": kind, **TRUNKS[kind]}, {"a": {"kind": "linear"}})
    initial = initial_variables(network, dataset(0), 0)
    result: dict[str, dict[str, Any]] = {}
    for precision in CASES:
        with jax.enable_x64(precision == "float64"):
            result[precision] = {
                name: train(network, initial, name, [0], precision) for name in CASES[precision]
            }
    result["auto"] = {
        f"{share}": choose_placement("auto", 1, lambda n, share=share: share / n).shards
        for share in (0.9, 1.5, 2.6, 3.5, 8.0)
    }
    with jax.enable_x64(True):
        members = list(range(len(RATES)))
        result["populations"] = {
            name: train(network, initial, name, members, "float64")
            for name in ("one", "shard_map 2")
        }
    print(json.dumps(result))


def train(
    network: Any, initial: dict[str, Any], name: str, members: list[int], precision: str
) -> dict[str, Any]:
    """Returns losses, outputs with the last state, and its parameters and statistics."""
    dtype = np.dtype(precision)
    placement = place(name, len(members))
    data = [dataset(seed) for seed in members]
    orders = [Order(CRYSTALS, BATCH_SIZE, STEPS // 3, seed, False) for seed in members]
    batches = TrainingBatches(
        list(zip(data, orders, strict=True)),
        max_shapes=1,
        stacked=placement.stacked,
        shards=placement.shards,
        local_shards=placement.local_shards,
        dtype=dtype,
    )
    variables = [
        jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf, dtype) * (1 + 0.1 * seed), initial)
        for seed in members
    ]
    recipe = Recipe(training(), Strategy(), initial, Groups(), STEPS)
    create = jax.jit(recipe.create_state)
    each = [Constants(dtype.type(RATES[seed]), {}) for seed in members]
    states = jax.device_get([create(*one) for one in zip(each, variables, strict=True)])
    state, constants = states[0], each[0]
    if len(members) > 1:
        state, constants = (
            jax.tree.map(lambda *leaves: np.stack(leaves), *trees) for trees in (states, each)
        )
        state = state._replace(step=states[0].step)
    mapped = network.clone(axis_name=placement.axis_name)
    step = placement.compiled(recipe.step(mapped), constants)
    state, losses, crystals = placement.put(state), [], []
    for batch in batches.from_step(0):
        state, metrics = step(state, placement.feed(batch))
        losses.append(np.asarray(metrics["loss"], float).tolist())
        crystals.append(np.asarray(metrics["crystals"], float).tolist())
    final = recipe.packing.unpack(placement.take(state))
    return {
        "devices": len(jax.tree.leaves(state.params)[0].devices()),
        "loss": losses,
        "crystals": crystals,
        "output": output(network, final, members, dtype).tolist(),
        "state": np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves((final.params, final.batch_stats))]
        ).tolist(),
    }


def place(name: str, members: int) -> Placement:
    """Returns a placement on the first devices alone."""
    devices = jax.devices()[: DEVICES[name]]
    with (
        mock.patch("jax.devices", lambda: devices),
        mock.patch("jax.device_count", lambda: len(devices)),
    ):
        return choose_placement(name.split()[0], members)


def output(network: Any, state: Any, members: list[int], dtype: np.dtype) -> np.ndarray:
    """Returns what the first member's variables, or the only ones, make of its crystals.

    With the statistics of the batch: the running ones follow a shift of the biases, which float32
    leaves to chance, only slowly.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if len(members) > 1:
        variables = jax.tree.map(lambda leaf: leaf[0], variables)
    order = Order(CRYSTALS, CRYSTALS, 1, 0, False)
    batches = TrainingBatches([(dataset(0), order)], max_shapes=1, stacked=False, dtype=dtype)
    apply = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))
    return np.asarray(apply(variables, next(batches.from_step(0)))[0])[:CRYSTALS, 0]


def dataset(seed: int) -> Dataset:
    """Returns crystals whose sites, bonds and angles have random counts, and their targets."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(CRYSTALS, 1))
    target[:2] = np.nan  # labels that are missing
    return Dataset([crystal(rng) for _ in range(CRYSTALS)], target)


def crystal(rng: np.random.Generator) -> CrystalGraph:
    """Returns a weighted graph: every class of sites has bonds, every class of bonds angles."""
    sites, bonds, angles = (int(rng.integers(low, high)) for low, high in ((1, 4), (4, 9), (9, 30)))

    def counts(rows: int) -> np.ndarray:
        return rng.integers(1, 5, size=rows).astype(np.int32)

    def ends(nodes: int, edges: int) -> tuple[np.ndarray, np.ndarray]:
        sender, receiver = rng.integers(0, nodes, size=(2, edges)).astype(np.int32)
        return sender, np.sort(receiver)

    bond_sender, bond_receiver = ends(sites, bonds)
    angle_sender, angle_receiver = ends(bonds, angles)
    return CrystalGraph(
        atomic_number=rng.integers(1, 90, size=sites).astype(np.int32),
        site_count=counts(sites),
        bond_sender=bond_sender,
        bond_receiver=bond_receiver,
        bond_length=rng.uniform(1.5, 4.0, size=bonds),
        bond_multiplicity=counts(bonds),
        angle_sender=angle_sender,
        angle_receiver=angle_receiver,
        angle_cosine=rng.uniform(-1, 1, size=angles),
        angle_multiplicity=counts(angles),
    )


if __name__ == "__main__":
    main(sys.argv[1])
