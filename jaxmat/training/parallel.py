"""Where a training step runs: on one device, spread over several, or once for each of many runs.

The step is written once. What differs is the axis in front of the batch: none (one device), the
devices that share a batch (sums over the axis make them one), or the members of a population
(which do not know of each other).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmat.batch import CrystalBatch
from jaxmat.errors import UserError
from jaxmat.training.sending import PackedBatch, Sent, of_sent, pack, send
from jaxmat.training.state import TrainState
from jaxmat.training.step import (
    Differentiate,
    Gradients,
    TrainStep,
    compiler_options,
    in_two_parts,
)

AXIS, _MEMBERS = "data", "members"
KINDS = ("auto", "one", "pmap", "shard_map")
# Devices that share a batch are to do at least so much work that is not padding.
_LEAST_REAL_SHARE = 0.5


class MemberStep(NamedTuple):
    """A training step of one run, in two programs.

    Attributes:
        differentiate: from state and batch to gradients.
        update: from the numbers in which members differ, state and gradients to state and metrics.
    """

    differentiate: Differentiate
    update: Callable[[Any, TrainState, Gradients], tuple[TrainState, dict[str, jax.Array]]]


class Placement(NamedTuple):
    """How a run is laid out on devices.

    Attributes:
        shards: devices that the batch of a member is divided among.
        local_shards: those of this process.
        stacked: whether batches have a leading axis, of members or devices.
        axis_name: name of the axis to sum over, None where the step sees whole batches.
        compiled: from a step and the numbers in which members differ to the compiled step; it
            donates the state.
        feed: brings a batch to the devices, in one transfer to each; may be called in another
            thread.
        put: brings a state to the devices. That of a population has a leading axis, of members,
            on all leaves but the step.
        take: brings a copy of it back to the memory of this host.
    """

    shards: int
    local_shards: Sequence[int]
    stacked: bool
    axis_name: str | None
    compiled: Callable[[MemberStep, Any], TrainStep]
    feed: Callable[[CrystalBatch], Sent]
    put: Callable[[TrainState], TrainState]
    take: Callable[[TrainState], TrainState]


def choose_placement(
    kind: str, members: int, real_share: Callable[[int], float] = lambda shards: 1.0
) -> Placement:
    """Returns the layout of a run on the devices there are.

    Args:
        kind: "one" device; "pmap" or "shard_map", all of them; "auto": shard_map over as many as
            do not spend most of their work on padding.
        members: of the population, 1 for a single run. The members of a population are divided
            among the devices, each on one of them.
        real_share: how much of the devices' work is not padding where so many share a batch.

    Raises:
        UserError: an unknown kind, or one that several processes or members cannot use.
    """
    if kind not in KINDS:
        raise UserError(f"config.training.devices is {kind!r}; use one of {', '.join(KINDS)}.")
    devices = jax.devices()
    if jax.process_count() > 1:
        if members > 1 or kind in ("one", "pmap"):
            raise UserError(
                "Several processes share one training by shard_map. Set config.training.devices="
                "'auto', and train a population in one process."
            )
        kind = "shard_map"
    if kind == "pmap" and members > 1:
        raise UserError("config.training.devices='pmap' is for one run; use 'shard_map'.")
    if members > 1:
        return _population(members, 1 if kind == "one" else len(devices))
    if kind == "auto":
        worth = (n for n in range(len(devices), 1, -1) if real_share(n) >= _LEAST_REAL_SHARE)
        devices = devices[: next(worth, 1)]
        kind = "shard_map" if len(devices) > 1 else "one"
    if kind == "one":
        return _one()
    return _sharing(devices, by_pmap if kind == "pmap" else by_shard_map)


def on_one_device(differentiate: Differentiate, devices: Sequence[jax.Device]) -> Any:
    """Returns the first part of a step, to be compiled when it is first called, or lowered.

    Args:
        differentiate: from state and batch to gradients.
        devices: where it runs; they need not be there, see benchmarks/accelerators.py.
    """
    return jax.jit(differentiate, compiler_options=compiler_options(devices[0].platform))


def by_pmap(differentiate: Differentiate, devices: Sequence[jax.Device]) -> Any:
    """Returns it for devices that share a batch, by `jax.pmap`."""
    # What in_axes and out_axes do not divide is the same on all devices. pmap takes no options
    # of the compiler, so on CPUs it keeps what would be computed again.
    return jax.pmap(differentiate, AXIS, in_axes=(None, 0), out_axes=None, devices=devices)


def by_shard_map(differentiate: Differentiate, devices: Sequence[jax.Device]) -> Any:
    """Returns it for devices that share a batch, by `jax.shard_map`."""
    everywhere, divided = PartitionSpec(), PartitionSpec(AXIS)

    def on_one(state: TrainState, batch: PackedBatch) -> Gradients:
        return differentiate(state, jax.tree.map(lambda leaf: leaf[0], batch))

    mapped = jax.shard_map(
        on_one,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=(everywhere, divided),
        out_specs=everywhere,
        check_vma=False,
    )
    return on_one_device(mapped, devices)


def for_members(differentiate: Differentiate, devices: Sequence[jax.Device]) -> Any:
    """Returns it for the members of a population, divided among devices."""
    divided = NamedSharding(Mesh(np.array(devices), (_MEMBERS,)), PartitionSpec(_MEMBERS))
    return jax.jit(
        jax.vmap(differentiate),
        in_shardings=divided,
        out_shardings=divided,
        compiler_options=compiler_options(devices[0].platform),
    )


def _jit_update(update: Callable[..., Any], constants: Any, **options: Any) -> Callable[..., Any]:
    program = jax.jit(update, donate_argnums=1, **options)
    return functools.partial(program, constants)


def _one() -> Placement:
    def compiled(step: MemberStep, constants: Any) -> TrainStep:
        differentiate = on_one_device(of_sent(step.differentiate), jax.devices())
        return in_two_parts(differentiate, _jit_update(step.update, constants))

    return Placement(1, [0], False, None, compiled, send, jax.device_put, _copied)


def _sharing(devices: Sequence[jax.Device], spread: Callable[..., Any]) -> Placement:
    """Returns the layout of devices that share a batch; `spread` is `by_pmap` or `by_shard_map`."""
    mesh = Mesh(np.array(devices), (AXIS,))
    put = functools.partial(_put, sharding=NamedSharding(mesh, PartitionSpec()))
    divided = NamedSharding(mesh, PartitionSpec(AXIS))

    def compiled(step: MemberStep, constants: Any) -> TrainStep:
        differentiate = spread(of_sent(step.differentiate), devices)
        return in_two_parts(differentiate, _jit_update(step.update, put(constants)))

    def feed(batch: CrystalBatch) -> PackedBatch:
        return _put(pack(batch, stacked=True), divided)

    mine = [i for i, each in enumerate(devices) if each.process_index == jax.process_index()]
    return Placement(len(devices), mine, True, AXIS, compiled, feed, put, _local)


def _population(members: int, devices: int) -> Placement:
    # Each device gets as many members as any other.
    used = max(n for n in range(1, min(members, devices) + 1) if members % n == 0)
    mesh = Mesh(np.array(jax.devices()[:used]), (_MEMBERS,))
    divided = NamedSharding(mesh, PartitionSpec(_MEMBERS))

    def compiled(step: MemberStep, constants: Any) -> TrainStep:
        layout = {"in_shardings": divided, "out_shardings": divided}
        differentiate = for_members(of_sent(step.differentiate), jax.devices()[:used])
        return in_two_parts(differentiate, _jit_update(jax.vmap(step.update), constants, **layout))

    def put(state: TrainState) -> TrainState:
        return jax.device_put(state._replace(step=jnp.full(members, state.step)), divided)

    def take(state: TrainState) -> TrainState:
        return _copied(state._replace(step=state.step[0]))

    def feed(batch: CrystalBatch) -> PackedBatch:
        return jax.device_put(pack(batch, stacked=True), divided)

    return Placement(1, [0], True, None, compiled, feed, put, take)


def _copied(state: TrainState) -> TrainState:
    # Of a CPU's memory device_get would be a view, which keeps a step from overwriting it.
    return jax.tree.map(np.array, jax.device_get(state))


def _local(state: TrainState) -> TrainState:
    """Returns what one device of this process has of a state that all have."""
    return _copied(jax.tree.map(lambda leaf: leaf.addressable_data(0), state))


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Makes arrays over all devices from what each process holds."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )
