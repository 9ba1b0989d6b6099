"""The vector of each crystal that a network's heads see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jaxmat.batch import CrystalBatch
from jaxmat.bundles.bundle import Bundle, load, may_meet_new_elements
from jaxmat.bundles.inference import Chunk, Inference, Step
from jaxmat.data.reading import Source, read
from jaxmat.runtime.stopping import passing_signals_on


def embed(model: str | Path, inputs: Source | Iterable[Source]) -> dict[str, np.ndarray]:
    """Pools crystals into vectors.

    Args:
        model: a bundle, work directory or checkpoint.
        inputs: structures, files, folders or tables, see `jaxmat.data.reading.read`.

    Returns:
        id: of the embedded crystals, text [crystals];
        vector: float32 [crystals, width];
        left_out, reason: ids of the other inputs and why they have no vector, text [others].

    Raises:
        UserError: the model cannot be read.
    """
    with passing_signals_on() as stop:
        return gather(stop.between(make_inference(load(model))(read(inputs))))


def make_inference(bundle: Bundle) -> Inference:
    """Returns what computes pooled vectors."""
    network = bundle.model.network()

    def pool(variables: dict[str, Any], batch: CrystalBatch) -> jax.Array:
        return cast(jax.Array, network.apply(variables, batch, method="embed"))

    return Inference(
        [Step(pool, bundle.variables)],
        columns=network.bind(bundle.variables).trunk.width,
        graph=bundle.model.graph,
        elements=bundle.about["elements"],
        new_elements=may_meet_new_elements(bundle),
    )


def gather(chunks: Iterable[Chunk]) -> dict[str, np.ndarray]:
    """Returns the arrays of `embed` from what `make_inference` makes of inputs."""
    ids, vectors, left_out, reasons = [], [], [], []
    for chunk in chunks:
        embedded = np.array([not reason for reason in chunk.reasons], bool)
        ids.append(np.array(chunk.ids, str)[embedded])
        vectors.append(chunk.outputs[embedded, 0])
        left_out.append(np.array(chunk.ids, str)[~embedded])
        reasons.append(np.array(chunk.reasons, str)[~embedded])
    return {
        "id": np.concatenate(ids),
        "vector": np.concatenate(vectors),
        "left_out": np.concatenate(left_out),
        "reason": np.concatenate(reasons),
    }
