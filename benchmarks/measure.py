"""Our side of benchmarks.throughput: python -m benchmarks.measure CRYSTALS JOB.

CRYSTALS is a JSON file [{"lattice_mat", "elements", "coords"}, ...], JOB a JSON object {"task":
"graphs" | "train" | "infer", "batch_size", "graph": of GraphSettings, "trunk": options
of the network}. Says a line when it is ready, which is after a step of each shape of batch where it
trains: the first of a shape is slow. Then, for each line that comes in, does its task once
with all crystals and says what it took. A process for each job: its peak memory is that of the job.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from pymatgen.core import Structure

from benchmarks.processes import read_crystals, serve
from jaxmat.batch import CrystalBatch, Shape, batch_crystals
from jaxmat.bundles.model import initial_variables
from jaxmat.commands.program import return_freed_memory
from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset, TrainingBatches
from jaxmat.data.order import Order
from jaxmat.data.shapes import graph_sizes, prediction_batches
from jaxmat.experiments import defaults
from jaxmat.experiments.recipe import Recipe
from jaxmat.models.network import CrystalNetwork, build_network, make_trunk
from jaxmat.training.parallel import on_one_device
from jaxmat.training.sending import Sent, of_sent, send
from jaxmat.training.state import TrainState
from jaxmat.training.step import in_two_parts, make_predict_step
from jaxmat.transfer.strategies import Strategy

Answer = dict[str, Any]
# A fast network goes through 256 crystals several hundred times in its turns.
_EPOCHS = 1000
# From carry and batch to carry and output.
Program = Callable[[Any, Sent], tuple[Any, Any]]


def main(crystals: str, job: str) -> None:
    """Answers each line of standard input."""
    return_freed_memory()
    # Compiled anew each time, so that the time it takes is known.
    jax.config.update("jax_enable_compilation_cache", False)
    turn = make_turn(read_crystals(Path(crystals)), **json.loads(job))
    serve({"device": str(jax.devices()[0])}, turn)


def make_turn(
    structures: Sequence[Structure],
    task: str,
    batch_size: int,
    graph: dict[str, Any],
    trunk: dict[str, Any],
) -> Callable[[], Answer]:
    """Returns the function that does a job once; see the module for the arguments."""
    settings = GraphSettings(**graph)
    if task == "graphs":
        # As reading gives them; the peer has its own kind of crystals.
        crystals = [Content.of(structure) for structure in structures]
        return functools.partial(time_graphs, crystals, settings)
    target = np.random.default_rng(0).normal(size=(len(structures), 1))
    data = Dataset(list(build_graphs(structures, settings)), target)
    network = build_network(trunk, {"property": {"kind": "linear"}})
    variables = initial_variables(network, data, 0)
    if task == "infer":
        predict = jax.jit(of_sent(make_predict_step(network)))

        def compile_prediction(variables: Any, batch: Sent) -> Program:
            program = predict.lower(variables, batch).compile()
            return lambda variables, batch: (variables, program(variables, batch))

        batches, steps = inference_batches(data, batch_size)
        return Steps(compile_prediction, variables, batches, steps)
    config = defaults.training()
    config.update(loss="mse", ema_decay=0.0)
    state, differentiate, update = training_step(network, variables, config)

    def compile_step(state: TrainState, batch: Sent) -> Program:
        program = differentiate.lower(state, batch).compile()
        return in_two_parts(program, update)

    training = training_batches(data, batch_size)
    turn = Steps(compile_step, state, training.from_step(0), training.steps_per_epoch)
    smallest = data.take(np.argsort(graph_sizes(data.graphs)[:, 1])[:1])
    for shape in training.shapes:
        turn.step(batch_crystals(smallest.graphs, smallest.target, shape))
    return turn


def training_step(
    network: CrystalNetwork, variables: dict[str, Any], config: ConfigDict
) -> tuple[TrainState, Any, Any]:
    """Returns a state, and the two programs of a step as `jaxmat.training.parallel` compiles them.

    Args:
        network: the network.
        variables: where training starts.
        config: `training` of a config.
    """
    groups = make_trunk(network.trunk_options).groups()
    recipe = Recipe(config, Strategy(), variables, groups, total_steps=100_000)
    constants = recipe.constants(config.learning_rate, {})
    step = recipe.step(network)
    differentiate = on_one_device(of_sent(step.differentiate), jax.devices()[:1])
    update = functools.partial(jax.jit(step.update, donate_argnums=1), constants)
    return recipe.create_state(constants, variables), differentiate, update


def training_batches(data: Dataset, batch_size: int) -> TrainingBatches:
    """Returns the batches of a training with default settings, more than all turns take."""
    config = defaults.training()
    order = Order(len(data.graphs), batch_size, epochs=_EPOCHS, seed=0, drop_last=True)
    return TrainingBatches(
        [(data, order)],
        max_shapes=config.max_shapes,
        stacked=False,
        platform=jax.default_backend(),
    )


def inference_batches(data: Dataset, batch_size: int) -> tuple[Iterator[CrystalBatch], int]:
    """Returns the batches of predictions, again and again, and how many hold all crystals."""
    plan = prediction_batches(graph_sizes(data.graphs), batch_size)

    def batches() -> Iterator[CrystalBatch]:
        while True:
            for indices, shape in plan:
                chosen = data.take(indices)
                yield batch_crystals(chosen.graphs, chosen.target, shape)

    return batches(), len(plan)


class Steps:
    """Some steps, one after the other, each waited for; compiling is timed apart."""

    def __init__(
        self,
        compile: Callable[[Any, Sent], Program],
        carry: Any,
        batches: Iterator[CrystalBatch],
        steps: int,
    ) -> None:
        """Compiles nothing yet.

        Args:
            compile: from the first carry and batch of a shape to the program for it.
            carry: what the first step gets.
            batches: without end.
            steps: of a turn.
        """
        self._compile, self._carry = compile, carry
        self._batches, self._steps = batches, steps
        self._programs: dict[Shape, Program] = {}
        self._compile_seconds = 0.0

    def __call__(self) -> Answer:
        """Returns seconds, those spent waiting for batches among them, and rows."""
        working = waiting = 0.0
        crystals = 0
        rows, padded = np.zeros(3, int), np.zeros(3, int)
        for _ in range(self._steps):
            asked = time.perf_counter()
            batch = next(self._batches)
            waiting += time.perf_counter() - asked
            working += self.step(batch)
            crystals += int(np.count_nonzero(batch.crystal_mask))
            rows += real_rows(batch)
            padded += [len(edges) for edges in _counts(batch)]
        return {
            "seconds": waiting + working,
            "waiting_seconds": waiting,
            "compile_seconds": self._compile_seconds,
            "shapes": len(self._programs),
            "structures": crystals,
            "rows": rows.tolist(),
            "padded_rows": padded.tolist(),
        }

    def step(self, batch: CrystalBatch) -> float:
        """Takes a step and returns the seconds it took without compiling."""
        program = self._compiled(batch)
        began = time.perf_counter()
        self._carry, output = program(self._carry, send(batch))
        jax.block_until_ready((self._carry, output))
        return time.perf_counter() - began

    def _compiled(self, batch: CrystalBatch) -> Program:
        if batch.shape not in self._programs:
            began = time.perf_counter()
            self._programs[batch.shape] = self._compile(self._carry, send(batch))
            self._compile_seconds += time.perf_counter() - began
        return self._programs[batch.shape]


def real_rows(batch: CrystalBatch) -> np.ndarray:
    """Returns the sites, bonds and angles of a batch that are no padding."""
    return np.array([np.count_nonzero(count) for count in _counts(batch)])


def _counts(batch: CrystalBatch) -> list[np.ndarray]:
    rows = (batch.crystals.nodes, batch.crystals.edges, batch.angles.edges)
    return [np.asarray(row["count"]) for row in rows]


def time_graphs(crystals: Sequence[Content], settings: GraphSettings) -> Answer:
    """Builds the graphs in this process and returns the seconds and rows."""
    began = time.perf_counter()
    graphs = list(build_graphs(crystals, settings))
    seconds = time.perf_counter() - began
    rows = graph_sizes(graphs).sum(axis=0).tolist()
    return {"seconds": seconds, "structures": len(graphs), "rows": rows}


if __name__ == "__main__":
    main(*sys.argv[1:])
