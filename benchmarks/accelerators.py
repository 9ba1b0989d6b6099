"""Compiles the training step for accelerators, without having one, and tells what bounds it.

    JAX_PLATFORMS=cpu python -m benchmarks.accelerators --data=FOLDER --set=dc --batch=64 \
        --trunk=alignn --target=cuda --precision=float32 --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench. Needs the extra "accelerators": the
compilers for TPUs (v5e) and for CUDA (an H100, as h100.txtpb describes it). Both programs of the
step are compiled as a run compiles them, at the trunk's full width. Kernels are what the compiled
programs start one after the other, 2.5 µs each; host time is that of making a batch from the store
and of sending it, dispatch that of calling both programs with their states, on this machine. The
bound on structures per second comes from the largest of these times: nothing ran on a device.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.throughput import sample
from jaxmat.batch import CrystalBatch
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset, TrainingBatches
from jaxmat.data.order import Order
from jaxmat.data.store import Content, append, open_store
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.recipe import Recipe
from jaxmat.models.network import PRECISIONS, CrystalNetwork, build_network
from jaxmat.models.trunk import Groups
from jaxmat.report.tables import format_table
from jaxmat.transfer.strategies import Strategy

TARGETS: Mapping[str, Mapping[str, str]] = {
    "tpu": {"topology_name": "v5e:2x2"},
    "cuda": {
        "topology": "1x1x1",
        "target_config": Path(__file__).with_name("h100.txtpb").read_text(encoding="utf-8"),
    },
}
SECONDS_PER_KERNEL = 2.5e-6
_CRYSTALS, _TURNS = 1024, 100
# Instructions of a compiled program that start nothing on the device.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "call", "conditional"}
_FREE |= {"while", "after-all", "opt-barrier", "partition-id", "replica-id"}


def main(argv: list[str]) -> None:
    """Compiles a step and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as folder:
        data = stored(Path(values.data) / f"{values.set}.json.gz", Path(folder))
        network = build_network(
            {"kind": values.trunk}, {"property": {"kind": "linear"}}, precision=values.precision
        )
        result = {"set": values.set, "batch": values.batch, "trunk": values.trunk}
        result |= {"target": values.target, "precision": values.precision}
        batch, result["host_ms"] = time_host(data, values.batch)
    programs = step_programs(network, batch)
    result["dispatch_ms"] = time_dispatch(network, batch)
    for name, program in programs.items():
        compiled = compile_for(values.target, *program)
        memory = compiled.memory_analysis()
        text = str(compiled.as_text())
        result |= {
            f"{name}_kernels": count_kernels(text),
            f"{name}_scatters": text.count(" scatter("),
            f"{name}_temporary_mb": memory.temp_size_in_bytes / 1e6,
        }
    kernels = result["gradients_kernels"] + result["update_kernels"]
    result["kernels_ms"] = 1e3 * SECONDS_PER_KERNEL * kernels
    slowest = max(result["kernels_ms"], result["host_ms"], result["dispatch_ms"])
    result["bound_structures_per_second"] = 1e3 * values.batch / slowest
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(format_table([result]))


def stored(file: Path, folder: Path) -> Dataset:
    """Returns crystals of a table as training has them, in a store in the folder."""
    structures = sample(file, _CRYSTALS)
    keys = np.array([Content.of(structure).key() for structure in structures], "S16")
    append(folder, GraphSettings(), keys, build_graphs(structures, GraphSettings()))
    graphs = open_store(folder)
    return Dataset(graphs, np.random.default_rng(0).normal(size=(len(graphs), 1)))


def time_host(data: Dataset, size: int) -> tuple[CrystalBatch, float]:
    """Returns a batch, and the median milliseconds of making one and sending it to a device."""
    config = defaults.training()
    order = Order(len(data.graphs), size, epochs=_TURNS, seed=0, drop_last=True)
    training = TrainingBatches([(data, order)], max_shapes=config.max_shapes, stacked=False)
    batches, seconds = training.from_step(0), []
    for _ in range(_TURNS):
        began = time.perf_counter()
        batch = next(batches)
        jax.block_until_ready(jax.device_put(batch))
        seconds.append(time.perf_counter() - began)
    return batch, 1e3 * float(np.median(seconds))


def step_programs(
    network: CrystalNetwork, batch: CrystalBatch
) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...]]]:
    """Returns both programs of a step: function, shapes of its arguments, which are donated.

    Args:
        network: the network.
        batch: any batch of the shape.
    """
    variables = {"batch_stats": {}, **jax.eval_shape(network.init, jax.random.key(0), batch)}
    recipe = Recipe(defaults.training(), Strategy(), variables, Groups(), total_steps=1000)
    step = recipe.step(network)
    constants = jax.eval_shape(lambda: recipe.constants(1e-3, {}))
    state = jax.eval_shape(recipe.create_state, constants, variables)
    gradients = jax.eval_shape(step.differentiate, state, batch)
    return {
        "gradients": (step.differentiate, (state, batch), ()),
        "update": (step.update, (constants, state, gradients), (1,)),
    }


def compile_for(
    target: str, function: Callable[..., Any], arguments: tuple[Any, ...], donated: tuple[int, ...]
) -> Any:
    """Returns a function compiled for one device of a target.

    Raises:
        UserError: JAX_PLATFORMS is not cpu.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        raise UserError("Set JAX_PLATFORMS=cpu: compilers for devices look for them otherwise.")
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    topology = topologies.get_topology_desc(platform=target, **TARGETS[target])
    device = SingleDeviceSharding(topology.devices[0])
    there = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), arguments
    )
    return jax.jit(function, donate_argnums=donated).lower(*there).compile()


def time_dispatch(network: CrystalNetwork, batch: CrystalBatch) -> float:
    """Returns the median milliseconds of calling programs that do nothing with a step's arrays."""
    calls = []
    for function, arguments, _ in step_programs(network, batch).values():
        results = jax.eval_shape(function, *arguments)
        given = jax.device_put(
            jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), arguments)
        )
        calls.append((_nothing(results), given))
    seconds = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        done = [call(*given) for call, given in calls]
        seconds.append(time.perf_counter() - began)
        jax.block_until_ready(done)
    return 1e3 * float(np.median(seconds))


def _nothing(results: Any) -> Callable[..., Any]:
    """Returns a program that takes anything and returns zeros like the results."""
    return jax.jit(
        lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), results),
        keep_unused=True,
    )


def count_kernels(text: str) -> int:
    """Returns how many kernels a compiled program starts; of branches the longest counts.

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

    def count(name: str) -> int:
        total = 0
        for line in bodies[name]:
            found = re.search(r" = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(", line)
            operation = found[1] if found else "parameter"
            total += operation not in _FREE
            called = re.findall(r"(?:body|condition|to_apply)=%?([\w.\-]+)", line)
            if operation in ("while", "call"):
                total += sum(count(each) for each in called)
            if operation == "conditional":
                branches = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
                for several in re.findall(r"branch_computations=\{([^}]*)\}", line):
                    branches += re.findall(r"[\w.\-]+", several)
                total += max(count(each) for each in branches)
        return total

    return count(entry)


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
