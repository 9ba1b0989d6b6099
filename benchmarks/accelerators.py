"""Compiles the training step for accelerators, without having one, and tells what bounds it.

    JAX_PLATFORMS=cpu python -m benchmarks.accelerators --data=FOLDER --set=dc --batch=64 \
        --trunk=alignn --target=cuda --precision=float32 --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench. Needs the extra "accelerators": the
compilers for TPUs (v5e) and for CUDA (an H100, as h100.txtpb describes it). Both programs of the
step are compiled as a run compiles them, at the trunk's full width. Kernels are what the compiled
programs start one after the other, 2.5 µs each; the host's time is that of making a batch from the
store and of sending it, in one thread, dispatch that of calling both programs with their states, on
this machine; waiting is the share of its time that a device of which each step takes 4 ms has
nothing to do in a training. The roofline is what the bytes and operations of the programs, as the
compiler counts them, take at least. The bound on structures per second comes from the largest of
these times: nothing ran on a device.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from benchmarks.feeding import batches_of, share_of_waiting, stored, time_host
from jaxmat.batch import CrystalBatch
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.recipe import Recipe
from jaxmat.models.network import PRECISIONS, CrystalNetwork, build_network
from jaxmat.models.trunk import Groups
from jaxmat.report.tables import format_table
from jaxmat.training.parallel import (
    MemberStep,
    by_pmap,
    by_shard_map,
    for_members,
    on_one_device,
)
from jaxmat.training.sending import of_sent, pack, send_packed
from jaxmat.transfer.strategies import Strategy

TARGETS: Mapping[str, Mapping[str, str]] = {
    "tpu": {"topology_name": "v5e:2x2"},
    "cuda": {
        "topology": "1x1x4",
        "target_config": Path(__file__).with_name("h100.txtpb").read_text(encoding="utf-8"),
    },
}
SECONDS_PER_KERNEL = 2.5e-6
_TURNS = 100
_SECONDS_OF_A_STEP = 4e-3


class Device(NamedTuple):
    """What a device can do at most.

    Attributes:
        bytes: from and to its memory a second.
        operations: of matrix products a second, by precision.
    """

    bytes: float
    operations: Mapping[str, float]


# From the makers' data sheets; a v5e makes float32 of six products in bfloat16.
DEVICES = {
    "cuda": Device(3.35e12, {"float32": 67e12, "tensorfloat32": 495e12, "bfloat16": 990e12}),
    "tpu": Device(819e9, {"float32": 33e12, "tensorfloat32": 66e12, "bfloat16": 197e12}),
}
LAYOUTS: Mapping[str, Callable[..., Any]] = {
    "one": on_one_device,
    "pmap": by_pmap,
    "shard_map": by_shard_map,
    "population": for_members,
}
# Instructions of a compiled program that start nothing on the device.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "call", "conditional"}
_FREE |= {"while", "after-all", "opt-barrier", "partition-id", "replica-id"}


def main(argv: list[str]) -> None:
    """Compiles a step and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    network = build_network(
        {"kind": values.trunk}, {"property": {"kind": "linear"}}, precision=values.precision
    )
    result = {"set": values.set, "batch": values.batch, "trunk": values.trunk}
    result |= {"target": values.target, "precision": values.precision}
    with stored(Path(values.data) / f"{values.set}.json.gz") as data:
        batch, host = time_host(data, values.batch)
        waiting = share_of_waiting(batches_of(data, values.batch).from_step, _SECONDS_OF_A_STEP)
    result |= {"making_ms": host.making, "sending_ms": host.sending}
    result["waiting_percent"] = 100 * waiting
    result["dispatch_ms"] = time_dispatch(network, batch)
    step, _, state, _ = step_shapes(network, batch)
    costs = jax.jit(step.differentiate).lower(state, batch).cost_analysis() or {}
    kernels = moved = 0
    for name, compiled in compile_for(values.target, network, batch).items():
        memory, counts = compiled.memory_analysis(), count(str(compiled.as_text()))
        result |= {
            f"{name}_kernels": counts.kernels,
            f"{name}_scatters": counts.scatters,
            f"{name}_temporary_mb": memory.temp_size_in_bytes / 1e6,
            f"{name}_moved_mb": counts.bytes / 1e6,
        }
        kernels, moved = kernels + counts.kernels, moved + counts.bytes
    device = DEVICES[values.target]
    result["roofline_ms"] = 1e3 * max(
        moved / device.bytes, costs.get("flops", 0.0) / device.operations[values.precision]
    )
    # A TPU runs one program, whatever its parts are.
    result["kernels_ms"] = 1e3 * SECONDS_PER_KERNEL * kernels if values.target == "cuda" else 0.0
    times = {name: result[f"{name}_ms"] for name in ("roofline", "kernels", "dispatch")}
    times["host"] = sum(host)
    result["bound_by"] = max(times, key=times.__getitem__)
    result["bound_structures_per_second"] = 1e3 * values.batch / max(times.values())
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(format_table([result]))


def step_shapes(network: CrystalNetwork, batch: CrystalBatch) -> tuple[MemberStep, Any, Any, Any]:
    """Returns the step of a network, and the shapes of its constants, state and gradients.

    Args:
        network: the network.
        batch: any batch of the shape.
    """
    alone = network.clone(axis_name=None)
    variables = {"batch_stats": {}, **jax.eval_shape(alone.init, jax.random.key(0), batch)}
    recipe = Recipe(defaults.training(), Strategy(), variables, Groups(), total_steps=1000)
    constants = jax.eval_shape(lambda: recipe.constants(1e-3, {}))
    state = jax.eval_shape(recipe.create_state, constants, variables)
    gradients = jax.eval_shape(recipe.step(alone).differentiate, state, batch)
    return recipe.step(network), constants, state, gradients


def compile_for(
    target: str, network: CrystalNetwork, batch: CrystalBatch, layout: str = "one", devices: int = 1
) -> dict[str, Any]:
    """Returns both programs of a step, compiled for devices that need not be there.

    Args:
        target: one of `TARGETS`.
        network: the network; with the axis `jaxmat.training.parallel.AXIS` where devices share a
            batch.
        batch: any batch of the shape of one device's part.
        layout: one of `LAYOUTS`.
        devices: their number; a population has as many members.

    Raises:
        UserError: JAX_PLATFORMS is not cpu.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        raise UserError("Set JAX_PLATFORMS=cpu: compilers for devices look for them otherwise.")
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    topology = topologies.get_topology_desc(platform=target, **TARGETS[target])
    there = topology.devices[:devices]
    mesh = Mesh(np.array(there), ("devices",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec("devices"))
    step, constants, state, gradients = step_shapes(network, batch)
    of_state, of_batch, update = everywhere, divided, step.update
    if layout == "population":
        constants, state, gradients = (
            _stacked(one, devices) for one in (constants, state, gradients)
        )
        of_state, update = divided, jax.vmap(step.update)
    packed: Any = pack(batch)
    if layout == "one":
        of_batch = everywhere
    else:
        packed = _stacked(packed, devices)
    state, constants, gradients = (_placed(one, of_state) for one in (state, constants, gradients))
    differentiate = LAYOUTS[layout](of_sent(step.differentiate), there)
    return {
        "gradients": differentiate.lower(state, _placed(packed, of_batch)).compile(),
        "update": jax.jit(update, donate_argnums=1).lower(constants, state, gradients).compile(),
    }


def _stacked(tree: Any, members: int) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), tree)


def _placed(tree: Any, sharding: Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def time_dispatch(network: CrystalNetwork, batch: CrystalBatch) -> float:
    """Returns the median milliseconds of calling programs that do next to nothing for a step.

    They take what the programs of a step take, and give what these give: the state is donated and
    comes back, gradients are what was made before.
    """
    step, *shapes = step_shapes(network, batch)
    constants, state, gradients = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tuple(shapes)
    )
    metrics = jax.eval_shape(step.update, *shapes)[1]

    def differentiate(kept: Any, state: Any, packed: Any) -> Any:
        return kept

    def update(constants: Any, state: Any, gradients: Any) -> Any:
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)

    first = jax.jit(differentiate, donate_argnums=0, keep_unused=True)
    second = jax.jit(update, donate_argnums=1, keep_unused=True)
    packed = send_packed(batch)
    seconds = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        gradients = first(gradients, state, packed)
        state, done = second(constants, state, gradients)
        seconds.append(time.perf_counter() - began)
        jax.block_until_ready((state, gradients, done))
    return 1e3 * float(np.median(seconds))


class Counts(NamedTuple):
    """What a compiled program does.

    Attributes:
        kernels: that it starts.
        scatters: among them.
        bytes: that they read and write, if none stays in a cache.
    """

    kernels: int
    scatters: int
    bytes: int


def count(text: str) -> Counts:
    """Counts what a compiled program does; of branches the one with the most kernels counts.

    Args:
        text: of the program, in XLA's form.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if begins := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name = begins[2]
            bodies[name] = []
            entry = name if begins[1] else entry
        elif line.startswith("  "):
            bodies.setdefault(name, []).append(line)
    scattering = {name for name, lines in bodies.items() if any(" scatter(" in x for x in lines)}

    def count_body(name: str) -> Counts:
        total = Counts(0, 0, 0)
        sizes: dict[str, int] = {}
        for line in bodies[name]:
            found = re.search(r"%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)", line)
            if found is None:
                continue
            own, shape, operation, rest = found.groups()
            sizes[own] = _bytes(shape)
            called = re.findall(r"(?:body|condition|to_apply|calls)=%?([\w.\-]+)", line)
            if operation not in _FREE:
                given = re.findall(r"%([\w.\-]+)", rest.partition(")")[0])
                moved = sizes[own] + sum(sizes.get(one, 0) for one in given)
                scatters = operation == "scatter" or not scattering.isdisjoint(called)
                total = _sum([total, Counts(1, int(scatters), moved)])
            if operation in ("while", "call"):
                total = _sum([total, *map(count_body, called)])
            if operation == "conditional":
                branches = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
                for several in re.findall(r"branch_computations=\{([^}]*)\}", line):
                    branches += re.findall(r"[\w.\-]+", several)
                total = _sum([total, max(map(count_body, branches))])
        return total

    return count_body(entry)


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


def _bytes(shape: str) -> int:
    """Returns the bytes of a shape in XLA's form, of a tuple those of its parts."""
    return sum(
        math.prod(map(int, filter(None, sizes.split(",")))) * max(int(bits or 8) // 8, 1)
        for bits, sizes in re.findall(r"[a-z]+(\d*)\w*\[([\d,]*)\]", shape)
    )


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_string("set", "dc", "Name of the table, without .json.gz.")
    flags.DEFINE_integer("batch", 64, "Crystals of the batch.")
    flags.DEFINE_string("trunk", "alignn", "Kind of the trunk.")
    flags.DEFINE_enum("target", "cuda", list(TARGETS), "What to compile for.")
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "Of matrix products.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
