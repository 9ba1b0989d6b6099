"""Shows where the time of a training step goes, and what lower precision does to its numbers.

    python -m benchmarks.step --data=FOLDER --set=dc --batch=16 --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench. The network is the paper's (width 256,
4 + 4 layers) and trains on one batch with the default graphs, padding and optimizer; --precision
and --remat are those of `training` in a config. JAX's profiler times each operation of the compiled
program of gradients, whose text says what it belongs to: an operation that XLA fused from several
counts as the first that fits of matrix product, gather or scatter, batch norm. The optimizer's
program is timed as a whole. Numbers are medians. Wants an otherwise idle machine: on a busy one,
threads that wait for each other stand between operations.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from benchmarks.measure import real_rows, training_batches, training_step
from benchmarks.throughput import ALIGNN, forward_flops, sample, usual_size
from jaxmat.batch import CrystalBatch
from jaxmat.bundles.model import initial_variables
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.models.network import PRECISIONS, CrystalNetwork, build_network, complete_options
from jaxmat.report.tables import format_table
from jaxmat.training.losses import absolute, masked_loss
from jaxmat.training.sending import send

PARTS = ("matrix products", "gather and scatter", "batch norm", "elementwise")
_STEPS = 20
_MATRIX_ROWS = 2048
_COSTLIEST = 5
_LOSS = functools.partial(masked_loss, elementwise=absolute, average="properties")


class Operation(NamedTuple):
    """An instruction of the program of gradients.

    Attributes:
        part: what it belongs to, one of PARTS.
        backward: whether it computes gradients.
        name: where it comes from and the shape of its result.
    """

    part: str
    backward: bool
    name: str


class Step:
    """A compiled training step that goes on and on with one batch.

    Attributes:
        text: of the program of gradients, in XLA's form.
        temporary_bytes: memory that this program needs beside its inputs and outputs.
    """

    def __init__(
        self, network: CrystalNetwork, variables: dict[str, Any], batch: CrystalBatch
    ) -> None:
        """Compiles it, in two programs as `jaxmat.training.parallel` does."""
        self._state, differentiate, self._update = training_step(
            network, variables, defaults.training()
        )
        self._batch = send(batch)
        self._differentiate = differentiate.lower(self._state, self._batch).compile()
        self.text = str(self._differentiate.as_text())
        memory = self._differentiate.memory_analysis()
        assert memory is not None
        self.temporary_bytes = memory.temp_size_in_bytes

    def __call__(self) -> None:
        """Does a step and waits for it."""
        self.differentiate()
        self.update()

    def differentiate(self) -> None:
        """Computes gradients and waits for them."""
        self._gradients = jax.block_until_ready(self._differentiate(self._state, self._batch))

    def update(self) -> None:
        """Updates the state with the last gradients and waits for it."""
        self._state, _ = jax.block_until_ready(self._update(self._state, self._gradients))


def main(argv: list[str]) -> None:
    """Measures a step and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    structures = sample(Path(values.data) / f"{values.set}.json.gz", usual_size(values.set))
    target = np.random.default_rng(0).normal(size=(len(structures), 1))
    data = Dataset(list(build_graphs(structures, GraphSettings())), target)
    result = {
        "set": values.set,
        "batch": values.batch,
        "precision": values.precision,
        "remat": values.remat,
        "load_average": os.getloadavg()[0],
        "cpus": os.cpu_count(),
        "device": str(jax.devices()[0]),
        **measure(
            data,
            complete_options({"kind": ALIGNN}),
            values.batch,
            {"precision": values.precision, "remat": values.remat},
        ),
    }
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(make_tables(result))


def measure(
    data: Dataset, trunk: dict[str, Any], batch_size: int, computation: dict[str, Any]
) -> dict[str, Any]:
    """Returns the seconds of a step's parts and what there is to compare them with.

    Args:
        data: crystals, enough for a batch.
        trunk: options of the network.
        batch_size: crystals of the batch, the first of a training.
        computation: `precision` and `remat` of build_network.

    Raises:
        UserError: the batch is too small to be taken apart.
    """
    batches = training_batches(data, batch_size).from_step(0)
    began = time.perf_counter()
    batch = next(batches)
    batch_seconds = time.perf_counter() - began
    network = build_network(trunk, {"property": {"kind": "linear"}}, **computation)
    variables = initial_variables(network, data, 0)
    step = Step(network, variables, batch)
    multiply = _multiplication(computation["precision"])
    step_seconds, update_seconds, matmul_seconds = _in_turns(step, step.update, multiply)
    seconds, traced_seconds = profile(step.differentiate, _STEPS)
    operations = read_operations(step.text)
    if not seconds.keys() & operations.keys():
        raise UserError("The profiler has seen no operation of the step on this device.")
    rows = [len(batch.crystals.nodes["count"]), *(len(g.senders) for g in (batch[0], batch[1]))]
    flops = 3 * forward_flops(ALIGNN, np.array(rows))  # backward costs two forward passes
    rate = 2 * _MATRIX_ROWS**3 / matmul_seconds
    return {
        "step_seconds": step_seconds,
        "batch_seconds": batch_seconds,
        "temporary_bytes": step.temporary_bytes,
        "gflops_per_second": flops / step_seconds / 1e9,
        "matmul_gflops_per_second": rate / 1e9,
        "matmul_share": flops / step_seconds / rate,
        "padding_share": 1 - forward_flops(ALIGNN, real_rows(batch)) * 3 / flops,
        "parts": sum_parts(seconds, operations),
        "optimizer_seconds": update_seconds,
        "idle_seconds": max(traced_seconds - sum(seconds.values()), 0.0),
        "costliest": [
            {
                "name": operations[name].name if name in operations else name,
                "seconds": seconds[name],
            }
            for name in sorted(seconds, key=lambda name: -seconds[name])[:_COSTLIEST]
        ],
        "precisions": compare_precisions(network, variables, batch),
    }


def profile(run: Callable[[], None], times: int) -> tuple[dict[str, float], float]:
    """Returns the seconds of each operation of a program, and of all of it with what is between."""
    durations = defaultdict(list)
    whole = []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(times):
                began = time.perf_counter()
                run()
                whole.append(time.perf_counter() - began)
        (file,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for event in (event for line in plane.lines for event in line.events):
                if name := dict(event.stats).get("hlo_op"):
                    durations[str(name)].append(event.duration_ns / 1e9)
    # An operation may be several events, as that of a loop is.
    seconds = {name: float(np.median(d)) * len(d) / times for name, d in durations.items()}
    return seconds, float(np.median(whole))


def read_operations(program: str) -> dict[str, Operation]:
    """Returns the instructions of a program in XLA's text form, by their names."""
    bodies = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", program, re.M | re.S))
    found = {}
    for line in "".join(bodies.values()).splitlines():
        if match := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = (\S+) ", line):
            name, shape = match.groups()
            called = re.search(r"calls=%?([\w.-]+)", line)
            source = re.search(r'op_name="([^"]*)"', line)
            path = source[1] if source else ""
            body = bodies.get(called[1], "") if called else ""
            found[name] = Operation(
                _part(f"{line}\n{body}", path),
                "transpose(jvp" in path,
                f"{'/'.join(path.split('/')[-4:]) or name}, {shape.split('{')[0]}",
            )
    return found


def _part(text: str, path: str) -> str:
    # What stands between the type of a result and the operands.
    opcodes = set(re.findall(r"[\]})] ([a-z][\w-]*)\(", text))
    if "dot" in opcodes or "gemm" in text:  # cuBLAS is called by a name with gemm in it
        return "matrix products"
    if opcodes & {"gather", "scatter"}:
        return "gather and scatter"
    return "batch norm" if re.search(r"/(bn_nodes|bn_edges|norm)/", path) else "elementwise"


def sum_parts(
    seconds: Mapping[str, float], operations: Mapping[str, Operation]
) -> dict[str, dict[str, float]]:
    """Returns part → seconds forward and backward; what is not in the text is elementwise."""
    parts = {part: {"forward": 0.0, "backward": 0.0} for part in PARTS}
    for name, value in seconds.items():
        operation = operations.get(name, Operation("elementwise", False, name))
        parts[operation.part]["backward" if operation.backward else "forward"] += value
    return parts


def compare_precisions(
    network: CrystalNetwork, variables: dict[str, Any], batch: CrystalBatch
) -> dict[str, dict[str, float]]:
    """Returns how far each precision is from float32, on one batch in training mode.

    Args:
        network: the network, in any precision.
        variables: where training starts.
        batch: crystals.

    Returns:
        Precision → "prediction_max" and "prediction_mean", differences relative to the spread of
        predictions, and "gradient", the norm of the difference relative to that of the gradient.
    """

    def run(precision: str) -> tuple[np.ndarray, Any]:
        chosen = network.clone(precision=precision)

        def objective(params: Any) -> tuple[jax.Array, jax.Array]:
            changed = {**variables, "params": params}
            prediction, _ = chosen.apply(changed, batch, train=True, mutable=["batch_stats"])
            numerators, denominators = _LOSS(prediction, batch)
            return jnp.sum(numerators / denominators), prediction

        gradient, prediction = jax.jit(jax.grad(objective, has_aux=True))(variables["params"])
        return np.asarray(prediction)[np.asarray(batch.crystal_mask) > 0], gradient

    expected, expected_gradient = run("float32")
    result = {}
    for precision in PRECISIONS[1:]:
        found, gradient = run(precision)
        difference = np.abs(found - expected) / np.std(expected)
        error = optax.tree.norm(optax.tree.sub(gradient, expected_gradient))
        result[precision] = {
            "prediction_max": float(difference.max()),
            "prediction_mean": float(difference.mean()),
            "gradient": float(error / optax.tree.norm(expected_gradient)),
        }
    return result


def make_tables(result: Mapping[str, Any]) -> str:
    """Returns the tables for people, in Markdown."""
    times = {part: sum(both.values()) for part, both in result["parts"].items()}
    times["between operations"] = result["idle_seconds"]
    times["optimizer"] = result["optimizer_seconds"]
    parts = [
        {
            "part": part,
            "ms": 1e3 * seconds,
            "share, %": 100 * seconds / sum(times.values()),
            "of it backward, ms": 1e3 * result["parts"].get(part, {}).get("backward", 0.0),
        }
        for part, seconds in times.items()
    ]
    costliest = [
        {"costliest operations": each["name"], "ms": 1e3 * each["seconds"]}
        for each in result["costliest"]
    ]
    precisions = [
        {"difference from float32": precision, **values}
        for precision, values in result["precisions"].items()
    ]
    summary = (
        f"A step of {result['batch']} crystals takes {1e3 * result['step_seconds']:.3g} ms, making "
        f"its batch {1e3 * result['batch_seconds']:.3g} ms. It does "
        f"{result['gflops_per_second']:.3g} GFLOP/s in matrix products, "
        f"{100 * result['matmul_share']:.0f} % of a plain one; "
        f"{100 * result['padding_share']:.0f} % of them are padding. Temporary memory: "
        f"{result['temporary_bytes'] / 1e6:.4g} MB."
    )
    return "\n\n".join([summary, *map(format_table, (parts, costliest, precisions))])


def _multiplication(precision: str) -> Callable[[], None]:
    """Returns a plain product of large matrices, compiled, that waits for its result."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    matrix = jnp.full((_MATRIX_ROWS, _MATRIX_ROWS), 1 / _MATRIX_ROWS, dtype)
    multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return lambda: multiply(matrix, matrix).block_until_ready()


def _in_turns(*runs: Callable[[], None]) -> list[float]:
    """Returns the median seconds of each after two rounds that do not count."""
    seconds = []
    for _ in range(2 + _STEPS):
        times = [time.perf_counter()]
        for run in runs:
            run()
            times.append(time.perf_counter())
        seconds.append(np.diff(times))
    return np.median(seconds[2:], axis=0).tolist()


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_string("set", "dc", "Name of the table, without .json.gz.")
    flags.DEFINE_integer("batch", 16, "Crystals of the batch.")
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "Of matrix products.")
    flags.DEFINE_bool("remat", False, "Compute layers again in the backward pass.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
