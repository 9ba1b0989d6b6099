"""Pools each crystal into the vector that a network's heads see, for use in other models.

    jaxmat embed --model=DIR --input=structures/ --output=embeddings.npz

The file opens with numpy.load(FILE) and holds
    id: of the embedded crystals, text [crystals];
    vector: float32 [crystals, width];
    left_out, reason: ids of the other inputs and why they have no vector, text [others].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from jaxmat.bundles.bundle import load
from jaxmat.bundles.embed import gather, make_inference
from jaxmat.bundles.inference import watch
from jaxmat.commands.command import Command, Flags
from jaxmat.data.inputs import SOURCES_HELP, find_inputs
from jaxmat.errors import UserError


def _define(values: Flags) -> None:
    model = "A bundle, run directory or checkpoint."
    flags.DEFINE_string("model", None, model, required=True, flag_values=values)
    flags.DEFINE_list("input", None, SOURCES_HELP, required=True, flag_values=values)
    output = "File to write, *.npz."
    flags.DEFINE_string("output", None, output, required=True, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    output = Path(values.output)
    if not output.parent.is_dir():  # found out now rather than after hours
        raise UserError(f"Cannot write --output={output}: there is no folder {output.parent}.")
    arrays = gather(watch(make_inference(load(values.model)), find_inputs(values.input)))
    try:
        with output.open("wb") as stream:  # given its name alone, numpy might add a suffix
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"Cannot write --output={output}: {error}") from error


COMMAND = Command(__doc__, _define, _run)
