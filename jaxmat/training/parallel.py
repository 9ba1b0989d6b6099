"""Where a training step runs: on one device, spread over several, or once for each of many runs.

The step is written once. What differs is the axis in front of the batch: none (one device), the
devices that share a batch (sums over the axis make them one), or the members of a population
(which do not know of each other).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmat.batch import CrystalBatch
from jaxmat.errors import UserError
from jaxmat.training.state import TrainState

AXIS = "data"
KINDS = ("auto", "one", "pmap", "shard_map")

# From the numbers in which members differ, state and batch to state and metrics.
MemberStep = Callable[[Any, TrainState, CrystalBatch], tuple[TrainState, dict[str, jax.Array]]]


class Placement(NamedTuple):
    """How a run is laid out on devices.

    Attributes:
        shards: devices that the batch of a member is divided among.
        local_shards: those of this process.
        stacked: whether batches have a leading axis, of members or devices.
        axis_name: name of the axis to sum over, None where the step sees whole batches.
        compiled: from a step to the compiled one; it donates the state.
        put: brings a state to the devices. That of a population has a leading axis, of members,
            on all leaves but the step.
        take: brings it back.
    """

    shards: int
    local_shards: Sequence[int]
    stacked: bool
    axis_name: str | None
    compiled: Callable[[MemberStep], MemberStep]
    put: Callable[[TrainState], TrainState]
    take: Callable[[TrainState], TrainState]


def choose_placement(kind: str, members: int, batch_size: int) -> Placement:
    """Returns the layout of a run on the devices there are.

    Args:
        kind: "one" device; "pmap" or "shard_map", all of them; "auto": shard_map where there are
            several and a batch has a crystal for each, else one.
        members: of the population, 1 for a single run. The members of a population are divided
            among the devices, each on one of them.
        batch_size: crystals of a batch.

    Raises:
        UserError: an unknown kind, or pmap with a population or several processes.
    """
    if kind not in KINDS:
        raise UserError(f"config.training.devices is {kind!r}; use one of {', '.join(KINDS)}.")
    if kind == "pmap" and (members > 1 or jax.process_count() > 1):
        raise UserError(
            "config.training.devices='pmap' is for one run in one process; use 'shard_map'."
        )
    devices = jax.device_count()
    if kind == "auto":
        kind = "shard_map" if devices > 1 and max(members, batch_size) >= devices else "one"
    if members > 1:
        return _population(members, devices if kind == "shard_map" else 1)
    return {"one": _one, "pmap": _pmap, "shard_map": _shard_map}[kind]()


def _one() -> Placement:
    def compiled(step: MemberStep) -> MemberStep:
        return jax.jit(step, donate_argnums=1)

    return Placement(1, [0], False, None, compiled, jax.device_put, _same)


def _pmap() -> Placement:
    devices = jax.local_device_count()

    def compiled(step: MemberStep) -> MemberStep:
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0, 0), donate_argnums=1)

        def run(constants: Any, state: TrainState, batch: CrystalBatch) -> Any:
            state, metrics = mapped(constants, state, batch)
            return state, _first(metrics)

        return run

    def put(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * devices), state)

    return Placement(devices, range(devices), True, AXIS, compiled, put, _first)


def _shard_map() -> Placement:
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    local = [
        i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()
    ]
    everywhere, divided = PartitionSpec(), PartitionSpec(AXIS)

    def compiled(step: MemberStep) -> MemberStep:
        def on_one(constants: Any, state: TrainState, batch: CrystalBatch) -> Any:
            return step(constants, state, _first(batch))

        program = jax.jit(
            jax.shard_map(
                on_one,
                mesh=mesh,
                in_specs=(everywhere, everywhere, divided),
                out_specs=everywhere,
                check_vma=False,
            ),
            donate_argnums=1,
        )

        def run(constants: Any, state: TrainState, batch: CrystalBatch) -> Any:
            return program(constants, state, _put(batch, NamedSharding(mesh, divided)))

        return run

    def put(state: TrainState) -> TrainState:
        return _put(state, NamedSharding(mesh, everywhere))

    return Placement(len(jax.devices()), local, True, AXIS, compiled, put, _same)


def _population(members: int, devices: int) -> Placement:
    # Each device gets as many members as any other.
    used = max(n for n in range(1, min(members, devices) + 1) if members % n == 0)
    mesh = Mesh(np.array(jax.local_devices()[:used]), ("members",))
    divided = NamedSharding(mesh, PartitionSpec("members"))

    def compiled(step: MemberStep) -> MemberStep:
        return jax.jit(jax.vmap(step), in_shardings=divided, donate_argnums=1)

    def put(state: TrainState) -> TrainState:
        return jax.device_put(state._replace(step=jnp.full(members, state.step)), divided)

    def take(state: TrainState) -> TrainState:
        return state._replace(step=state.step[0])

    return Placement(1, [0], True, None, compiled, put, take)


def _same(state: TrainState) -> TrainState:
    return state


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Makes arrays over all processes from what each of them holds."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )
