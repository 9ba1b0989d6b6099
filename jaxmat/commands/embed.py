"""Pools each crystal into the vector that a network's heads see, for use in other models.

    python -m jaxmat.commands.embed --model=DIR --input=PATHS --output=embeddings.npz

The file opens with numpy.load(FILE) and holds
    id: of the embedded crystals, text [crystals];
    vector: float32 [crystals, width];
    left_out, reason: ids of the other inputs and why they have no vector, text [others].
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from absl import flags

from jaxmat.batch import CrystalBatch
from jaxmat.bundles.bundle import Bundle, load
from jaxmat.bundles.inference import Chunk, Inference, Step, watch
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.inputs import SOURCES_HELP, Source, find_inputs
from jaxmat.errors import UserError


def embed(model: str | Path, inputs: Source | Iterable[Source]) -> dict[str, np.ndarray]:
    """Returns the arrays "id", "vector", "left_out" and "reason", described above.

    Args:
        model: a bundle, run directory or checkpoint.
        inputs: structures, files, folders or tables, see `jaxmat.data.inputs.find_inputs`.

    Raises:
        UserError: the model cannot be read.
    """
    return gather(make_inference(load(model))(find_inputs(inputs)))


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


def _define_flags() -> None:
    flags.DEFINE_string("model", None, "A bundle, run directory or checkpoint.", required=True)
    flags.DEFINE_list("input", None, SOURCES_HELP, required=True)
    flags.DEFINE_string("output", None, "File to write, *.npz.", required=True)


def _main(argv: list[str]) -> None:
    refuse_arguments(argv, "Several inputs are separated by commas.")
    values = flags.FLAGS
    output = Path(values.output)
    if not output.parent.is_dir():  # found out now rather than after hours
        raise UserError(f"Cannot write --output={output}: there is no folder {output.parent}.")
    arrays = gather(watch(make_inference(load(values.model)), find_inputs(values.input)))
    try:
        with output.open("wb") as stream:  # given its name alone, numpy might add a suffix
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"Cannot write --output={output}: {error}") from error


if __name__ == "__main__":
    _define_flags()
    run_program(_main)
