"""From any number of inputs to what networks make of them, a chunk at a time, none left out.

Reading, checks, graphs, batches and networks meet here; the graphs of one chunk are in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from pymatgen.core import Element, Structure
from tqdm import tqdm

from jaxmat.batch import CrystalBatch, Shape
from jaxmat.crystals.checks import find_problem
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.inputs import Input
from jaxmat.data.shapes import equal_batches, graph_sizes
from jaxmat.errors import UserError, listed
from jaxmat.training.feeding import delayed, made_ahead

_CHUNK = 1024
_SECONDS_BETWEEN_LOG_LINES = 30.0

_logger = logging.getLogger(__name__)

Function = Callable[[dict[str, Any], CrystalBatch], jax.Array]


class Step(NamedTuple):
    """What is computed of a batch.

    Attributes:
        function: from (variables, batch) to [crystals, columns]; steps with the same function
            share its programs.
        variables: of the network.
    """

    function: Function
    variables: dict[str, Any]


class Chunk(NamedTuple):
    """What became of some inputs.

    Attributes:
        ids: of the inputs.
        outputs: of each step, float32 [inputs, steps, columns]; NaN where there is a reason.
        reasons: why there is no output; "" where there is one.
    """

    ids: list[str]
    outputs: np.ndarray
    reasons: list[str]


class Inference:
    """Computes steps on crystals; a program is compiled when a shape first occurs, then kept.

    Attributes:
        compile_seconds: spent on compiling so far.
    """

    def __init__(
        self, steps: Sequence[Step], columns: int, graph: GraphSettings, elements: list[str] | None
    ) -> None:
        """Compiles nothing yet.

        Args:
            steps: what to compute, at least one.
            columns: of the output of each step.
            graph: how structures become graphs.
            elements: symbols of the elements that the networks know, None where that is not known.
        """
        self.compile_seconds = 0.0
        self._steps = [Step(step.function, jax.device_put(step.variables)) for step in steps]
        self._columns = columns
        self._graph = graph
        self._known = None if elements is None else {Element(symbol).Z for symbol in elements}
        self._programs: dict[tuple[Function, Shape], jax.stages.Compiled] = {}

    def __call__(self, inputs: Sequence[Input]) -> Iterator[Chunk]:
        """Yields what becomes of inputs, in order; without inputs one empty chunk.

        Devices work on a chunk while the next one is read and its graphs are built.
        """
        starts = range(0, max(len(inputs), 1), _CHUNK)
        begun = (self._begin(inputs[start : start + _CHUNK]) for start in starts)
        for finish in delayed(begun, 1):
            yield finish()

    def _begin(self, inputs: Sequence[Input]) -> Callable[[], Chunk]:
        """Starts a chunk; returns what waits for its outputs."""
        crystals = [self._read(entry) for entry in inputs]
        good = [i for i, crystal in enumerate(crystals) if isinstance(crystal, Structure)]
        reasons = ["" if isinstance(crystal, Structure) else crystal for crystal in crystals]
        structures = [crystal for crystal in crystals if isinstance(crystal, Structure)]
        graphs = list(build_graphs(structures, self._graph))
        computed = self._compute(graphs) if graphs else []

        def finish() -> Chunk:
            outputs = np.full((len(inputs), len(self._steps), self._columns), np.nan, np.float32)
            for indices, by_step in computed:
                places = np.array(good)[indices]
                for i, output in enumerate(by_step):
                    outputs[places, i] = np.asarray(output)[: len(indices)]
            for i in good:
                if not np.isfinite(outputs[i]).all():
                    outputs[i], reasons[i] = np.nan, "the network's answer is not a finite number"
            return Chunk([entry.id for entry in inputs], outputs, reasons)

        return finish

    def _read(self, entry: Input) -> Structure | str:
        """Returns a structure, or why it cannot be used."""
        try:
            structure = entry.read()
        except UserError as error:
            return str(error).removeprefix(f"{entry.id}: ")
        if problem := find_problem(structure):
            return problem
        numbers = {site.specie.Z for site in structure}
        if self._known is not None and (new := sorted(numbers - self._known)):
            symbols = ", ".join(Element.from_Z(number).symbol for number in new)
            return f"the model has never seen {symbols}: no training crystal held it"
        return structure

    def _compute(self, graphs: Sequence[CrystalGraph]) -> list[tuple[np.ndarray, list[jax.Array]]]:
        """Returns which crystals are in each batch, and the outputs of each step on it."""
        data = Dataset(graphs, np.zeros((len(graphs), 0)))
        known_shapes = [shape for _, shape in self._programs]
        members, shape = equal_batches(graph_sizes(graphs), known_shapes)
        made = (jax.device_put(data.batch(indices, shape)) for indices in members)
        with made_ahead(made) as batches:
            return [
                (indices, [self._run(step, shape, batch) for step in self._steps])
                for indices, batch in zip(members, batches, strict=True)
            ]

    def _run(self, step: Step, shape: Shape, batch: CrystalBatch) -> jax.Array:
        key = (step.function, shape)
        if key not in self._programs:
            began = time.monotonic()
            lowered = jax.jit(step.function).lower(step.variables, batch)
            self._programs[key] = lowered.compile()
            self.compile_seconds += time.monotonic() - began
        return self._programs[key](step.variables, batch)


def watch(inference: Inference, inputs: Sequence[Input]) -> Iterator[Chunk]:
    """Yields what becomes of inputs, showing progress, and at the end speed and what is left out.

    On a terminal a bar moves, elsewhere there is a log line every half minute.

    Raises:
        UserError: at the end, if nothing could be computed at all.
    """
    began = said = time.monotonic()
    left_out: list[str] = []
    with tqdm(total=len(inputs), disable=None, unit="input", smoothing=0) as bar:
        done = 0
        for chunk in inference(inputs):
            yield chunk
            done += len(chunk.ids)
            left_out += [
                f"{id}: {why}" for id, why in zip(chunk.ids, chunk.reasons, strict=True) if why
            ]
            bar.update(len(chunk.ids))
            now = time.monotonic()
            if bar.disable and now - said > _SECONDS_BETWEEN_LOG_LINES:
                left = tqdm.format_interval((now - began) / done * (len(inputs) - done))
                _logger.info("%d of %d inputs, %s left", done, len(inputs), left)
                said = now
    if len(left_out) == len(inputs):
        raise UserError(f"None of {len(inputs)} inputs can be used:\n{listed(left_out)}")
    if left_out:
        _logger.warning("%d inputs cannot be used:\n%s", len(left_out), listed(left_out))
    seconds = time.monotonic() - began
    _logger.info(
        "%d inputs in %.1f s, %.0f structures/s (%.1f s of it spent on compiling)",
        len(inputs),
        seconds,
        len(inputs) / seconds,
        inference.compile_seconds,
    )
