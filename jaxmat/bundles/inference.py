"""From any number of inputs to what networks make of them, a chunk at a time, none left out.

Reading, checks, graphs, batches and networks meet here; the graphs of one chunk are in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from pymatgen.core import Element

from jaxmat.batch import CrystalBatch, Shape
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.reading import Reading
from jaxmat.data.shapes import equal_batches, graph_sizes
from jaxmat.errors import UserError, counted, listed
from jaxmat.runtime.bars import progress_bar
from jaxmat.runtime.durations import in_words
from jaxmat.runtime.stopping import give_up_if_told, giving_up_at_once
from jaxmat.training.feeding import delayed, made_ahead
from jaxmat.training.sending import Sent, of_sent, send

# Inputs that are read, and whose predictions are written, together.
CHUNK = 1024
_SECONDS_BETWEEN_LOG_LINES = 30.0
# Inputs of which a message says more than that they are there.
_TOLD = 10

_logger = logging.getLogger(__name__)

Function = Callable[[dict[str, Any], CrystalBatch], jax.Array]


class NothingUsable(UserError):
    """None of the inputs can be computed."""


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
        remarks: what is to be known about the input; "" for nothing.
        new: whether it holds elements that the networks do not know, bool [inputs].
        share: of all inputs that is done, 0 to 1, more or less.
    """

    ids: list[str]
    outputs: np.ndarray
    reasons: list[str]
    remarks: list[str]
    new: np.ndarray
    share: float


class Inference:
    """Computes steps on crystals; a program is compiled when a shape first occurs, then kept.

    Attributes:
        compile_seconds: spent on compiling so far.
        shapes: of batches, those used so far; which of them a batch gets depends on them.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        columns: int,
        graph: GraphSettings,
        elements: list[str] | None,
        new_elements: bool = False,
    ) -> None:
        """Compiles nothing yet.

        Args:
            steps: what to compute, at least one.
            columns: of the output of each step.
            graph: how structures become graphs.
            elements: symbols of the elements that the networks know, None where that is not known.
            new_elements: whether they may be asked about others.
        """
        self.compile_seconds = 0.0
        self.shapes: list[Shape] = []
        self._steps = [Step(step.function, jax.device_put(step.variables)) for step in steps]
        self._columns = columns
        self._graph = graph
        self._known = None if elements is None else {Element(symbol).Z for symbol in elements}
        self._new_elements = new_elements
        self._programs: dict[tuple[Function, Shape], jax.stages.Compiled] = {}

    def __call__(self, inputs: Iterable[Reading]) -> Iterator[Chunk]:
        """Yields what becomes of inputs, in order; without inputs one empty chunk.

        Devices work on a chunk while the next one is read and its graphs are built.
        """
        begun = (self._begin(chunk) for chunk in _chunks(inputs))
        for finish in delayed(begun, 1):
            yield finish()

    def _begin(self, inputs: Sequence[Reading]) -> Callable[[], Chunk]:
        """Starts a chunk; returns what waits for its outputs."""
        new = [self._unknown(entry) for entry in inputs]
        reasons = [self._reason(*pair) for pair in zip(inputs, new, strict=True)]
        good = [i for i, reason in enumerate(reasons) if not reason]
        crystals = [entry.content for i in good if (entry := inputs[i]).content]
        with giving_up_at_once():
            graphs = list(build_graphs(crystals, self._graph))
        computed = self._compute(graphs) if graphs else []

        def finish() -> Chunk:
            outputs = np.full((len(inputs), len(self._steps), self._columns), np.nan, np.float32)
            for indices, by_step in computed:
                places = np.array(good)[indices]
                give_up_if_told()
                for i, output in enumerate(by_step):
                    outputs[places, i] = np.asarray(output)[: len(indices)]
            for i in good:
                if not np.isfinite(outputs[i]).all():
                    outputs[i], reasons[i] = np.nan, "the network's answer is not a finite number"
            remarks = [_remark(*told) for told in zip(inputs, new, reasons, strict=True)]
            share = inputs[-1].share if inputs else 1.0
            ids = [entry.id for entry in inputs]
            return Chunk(ids, outputs, reasons, remarks, np.array(new, object) != "", share)

        return finish

    def _unknown(self, entry: Reading) -> str:
        """Returns the elements of a crystal that the networks do not know, "" for none."""
        if entry.content is None or self._known is None:
            return ""
        new = sorted(set(entry.content.atomic_number.tolist()) - self._known)
        return ", ".join(Element.from_Z(number).symbol for number in new)

    def _reason(self, entry: Reading, new: str) -> str:
        """Returns why a crystal cannot be used, "" if it can."""
        if entry.content is None:
            return entry.reason
        if new and not self._new_elements:
            return f"the model has never seen {new}: no training crystal held it"
        return ""

    def _compute(self, graphs: Sequence[CrystalGraph]) -> list[tuple[np.ndarray, list[jax.Array]]]:
        """Returns which crystals are in each batch, and the outputs of each step on it."""
        data = Dataset(graphs, np.zeros((len(graphs), 0)))
        members, shape = equal_batches(graph_sizes(graphs), self.shapes)
        if shape not in self.shapes:
            self.shapes.append(shape)
        made = (send(data.batch(indices, shape)) for indices in members)
        with made_ahead(made) as batches:
            return [
                (indices, [self._run(step, shape, batch) for step in self._steps])
                for indices, batch in zip(members, batches, strict=True)
            ]

    def _run(self, step: Step, shape: Shape, batch: Sent) -> jax.Array:
        give_up_if_told()
        key = (step.function, shape)
        if key not in self._programs:
            began = time.monotonic()
            lowered = jax.jit(of_sent(step.function)).lower(step.variables, batch)
            self._programs[key] = lowered.compile()
            self.compile_seconds += time.monotonic() - began
        return self._programs[key](step.variables, batch)


def _remark(entry: Reading, new: str, reason: str) -> str:
    """Returns what is to be known about an input."""
    extrapolated = (
        f"no training crystal held {new}: what the model says of it rests on properties of elements"
    )
    return "; ".join([*entry.remarks, *([extrapolated] if new and not reason else [])])


def _chunks(inputs: Iterable[Reading]) -> Iterator[list[Reading]]:
    """Yields some inputs at a time; without inputs an empty chunk."""
    inputs = iter(inputs)
    yield list(islice(inputs, CHUNK))
    while chunk := list(islice(inputs, CHUNK)):
        yield chunk


def watch(inference: Inference, inputs: Iterable[Reading], before: int = 0) -> Iterator[Chunk]:
    """Yields what becomes of inputs, showing progress, and at the end speed and what is left out.

    On a terminal a bar moves, elsewhere there is a log line every half minute.

    Args:
        inference: computes.
        inputs: what is to be computed.
        before: inputs that were done another time.

    Raises:
        NothingUsable: at the end, if nothing could be computed at all.
    """
    began = said = time.monotonic()
    left_out, remarked = _Told(), _Told()
    done = 0
    with progress_bar(100, unit="%", smoothing=0) as bar:
        for chunk in inference(inputs):
            yield chunk
            done += len(chunk.ids)
            left_out.add(chunk.ids, chunk.reasons)
            remarked.add(chunk.ids, chunk.remarks)
            bar.update(100 * chunk.share - bar.n)
            bar.set_postfix_str(counted(done, "input"))
            now = time.monotonic()
            if bar.disable and now - said > _SECONDS_BETWEEN_LOG_LINES:
                left = in_words((now - began) * (1 / max(chunk.share, 1e-9) - 1))
                _logger.info(
                    "%s, %.0f %%, %s left", counted(done, "input"), 100 * chunk.share, left
                )
                said = now
    if left_out.count == done and not before:
        raise NothingUsable(f"None of {counted(done, 'input')} can be used:\n{left_out.listed()}")
    if remarked.count:
        _logger.info("Remarks on %s:\n%s", counted(remarked.count, "input"), remarked.listed())
    if left_out.count:
        _logger.warning(
            "%s cannot be used:\n%s", counted(left_out.count, "input"), left_out.listed()
        )
    seconds = time.monotonic() - began
    _logger.info(
        "%s in %.1f s, %.0f structures/s (%.1f s of it spent on compiling)",
        counted(done, "input"),
        seconds,
        done / seconds,
        inference.compile_seconds,
    )


class _Told:
    """What is said of inputs: the first in words, the others counted."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        told = [f"{id}: {text}" for id, text in zip(ids, texts, strict=True) if text]
        self.count += len(told)
        self._first += told[: _TOLD - len(self._first)]

    def listed(self) -> str:
        more = self.count - len(self._first)
        return listed([*self._first, *([f"... and {more} more"] if more else [])], _TOLD + 1)
