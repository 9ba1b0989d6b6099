"""Writes a network's vector of each crystal, for use in other models.

    jaxmat embed --model=DIR --input=structures/ --output=embeddings.npz

The file opens with numpy.load(FILE) and holds
    id: of the crystals, text [crystals];
    vector: float32 [crystals, width];
    left_out, reason: ids of the other inputs and why they have no vector, text [others].
"""

from __future__ import annotations

import logging

import numpy as np
from absl import flags

from jaxmat.bundles.bundle import load
from jaxmat.bundles.embed import gather, make_inference
from jaxmat.bundles.inference import watch
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.output import refuse_overwriting, require_folder, writing
from jaxmat.commands.reading import MODEL_HELP, define_input, read_input
from jaxmat.errors import UserError, counted
from jaxmat.runtime.files import rejoin_paths, whole_file
from jaxmat.runtime.stopping import stop_on_signals

_logger = logging.getLogger(__name__)


def _define(values: Flags) -> None:
    flags.DEFINE_string("model", None, MODEL_HELP, required=True, flag_values=values)
    define_input(values)
    output = "File to write, *.npz."
    flags.DEFINE_string("output", None, output, required=True, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    if values.output.endswith((".csv", ".npy")):
        raise UserError(
            f"--output={values.output}: vectors are written as *.npz; give such a name."
        )
    require_folder(values.output)
    inputs = rejoin_paths(values.input)
    # The first file in the archive has its name at the thirtieth byte.
    refuse_overwriting(values.output, inputs, lambda start: start[30:].startswith(b"id.npy"))
    with stop_on_signals() as stop, writing(values.output):
        inference = make_inference(load(values.model))
        arrays = gather(stop.between(watch(inference, read_input(values, inputs))))
        # Given its name alone, numpy might add a suffix.
        with whole_file(values.output) as unfinished, unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    _logger.info("vectors of %s: %s", counted(len(arrays["id"]), "crystal"), values.output)


COMMAND = Command(__doc__, _define, _run)
