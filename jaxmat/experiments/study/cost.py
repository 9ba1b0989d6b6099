"""What training steps of a study take: on the machine at hand, and at least on accelerators.

At least: no program needs less time than its operations take at the peak of the device, nor than it
takes to start its kernels one after the other. Both bounds are far below what is reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.batch import CrystalBatch
from jaxmat.bundles.model import initial_variables
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.batches import Dataset, TrainingBatches
from jaxmat.data.findings import Findings
from jaxmat.data.order import Order
from jaxmat.experiments.labelled import find_labelled
from jaxmat.experiments.prepare import graph_settings
from jaxmat.experiments.recipe import Recipe
from jaxmat.models.network import build_network, make_trunk
from jaxmat.training.parallel import MemberStep, on_one_device
from jaxmat.training.state import TrainState
from jaxmat.transfer.strategies import Strategy

# Crystals of a table that stand for all, at most.
_SAMPLE = 256
_TURNS = 3


class Device(NamedTuple):
    """What an accelerator can do at most.

    Attributes:
        operations: of matrix products a second, by precision.
        kernel_seconds: that it takes to start a kernel; 0 where a program is started whole.
    """

    operations: Mapping[str, float]
    kernel_seconds: float


# From the makers' data sheets; a v5e makes a product in float32 of six in bfloat16.
DEVICES = {
    "H100": Device({"float32": 67e12, "tensorfloat32": 495e12, "bfloat16": 990e12}, 2.5e-6),
    "v5e": Device({"float32": 33e12, "tensorfloat32": 66e12, "bfloat16": 197e12}, 0.0),
}
# Kernels of a step for each array of weights, as compiled for an H100: benchmarks/accelerators.py
# counts 516 and 339 for networks of 190 and 78 arrays.
_KERNELS = {"alignn": 516 / 190, "cogn": 339 / 78}
# Of a step that trains all, at least so much is left where parts are frozen: the forward pass.
_FORWARD = 1 / 3


class StepCost(NamedTuple):
    """What a step takes that trains all parameters.

    Attributes:
        operations: of it, as the compiler counts them.
        kernels: that a GPU starts for it.
        precision: of its matrix products.
    """

    operations: float
    kernels: float
    precision: str

    def least_seconds(self, device: Device, *, frozen: bool, together: int) -> float:
        """Returns what a step takes at least.

        Args:
            device: where it runs.
            frozen: whether parts of the network do not train.
            together: trainings that are one program.
        """
        computing = self.operations / device.operations[self.precision]
        starting = self.kernels * device.kernel_seconds / together
        return (_FORWARD if frozen else 1.0) * max(computing, starting)


class Sample(NamedTuple):
    """A step on crystals of a table.

    Attributes:
        step: of the network, not compiled.
        constants: of the step.
        state: before the step.
        batch: a batch of the usual size.
        cost: of the step.
    """

    step: MemberStep
    constants: Any
    state: TrainState
    batch: CrystalBatch
    cost: StepCost


def sample_step(config: ConfigDict) -> Sample:
    """Returns a step on a sample of a table, the same whenever it is asked for.

    Args:
        config: with `data`, `graph`, `network` and `training`.

    Raises:
        UserError: see `find_labelled`.
    """
    labelled = find_labelled(config.data, None, Findings(config.data.path))
    rows = np.random.RandomState(0).permutation(len(labelled.table.ids))[:_SAMPLE]
    crystals = labelled.table.contents.take(rows)
    graphs = list(build_graphs(crystals, graph_settings(config)))
    dataset = Dataset(graphs, np.zeros((len(graphs), len(labelled.properties))))
    network = build_network(
        config.network.trunk.to_dict(),
        {one.name: config.network.head.to_dict() for one in labelled.properties},
        precision=config.training.precision,
    )
    variables = initial_variables(network, dataset, 0)
    groups = make_trunk(network.trunk_options).groups()
    recipe = Recipe(config.training, Strategy(), variables, groups, total_steps=1000)
    constants = recipe.constants(config.training.learning_rate, {})
    state, step = recipe.create_state(constants, variables), recipe.step(network)
    batch = _usual_batch(dataset, config.training.batch_size)
    lowered = jax.jit(step.differentiate).lower(state, batch)
    kernels = _KERNELS.get(config.network.trunk.kind, 0.0) * len(flatten_dict(variables["params"]))
    operations = float((lowered.cost_analysis() or {}).get("flops", 0.0))
    return Sample(step, constants, state, batch, StepCost(operations, kernels, network.precision))


def time_step(sample: Sample) -> float:
    """Returns the seconds that a step takes on the first device there is, once it is compiled."""
    differentiate = on_one_device(sample.step.differentiate, jax.devices())
    update = jax.jit(sample.step.update)

    def turn() -> float:
        began = time.monotonic()
        gradients = differentiate(sample.state, sample.batch)
        jax.block_until_ready(update(sample.constants, sample.state, gradients))
        return time.monotonic() - began

    turn()
    return float(np.median([turn() for _ in range(_TURNS)]))


def _usual_batch(data: Dataset, batch_size: int) -> CrystalBatch:
    """Returns a batch of about the mean size; a table with fewer crystals fills a smaller one."""
    size = min(batch_size, len(data.graphs))
    order = Order(len(data.graphs), size, epochs=1, seed=0, drop_last=True)
    return next(TrainingBatches([(data, order)], max_shapes=8, stacked=False).from_step(0))
