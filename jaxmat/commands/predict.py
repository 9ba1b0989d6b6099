"""Predicts properties of crystals.

    jaxmat predict --model=DIR --input=structures/ --output=predictions.csv

From Python: jaxmat.load("DIR").predict(structures).
"""

from __future__ import annotations

from absl import flags

from jaxmat.bundles.inference import watch
from jaxmat.bundles.predict import Forecast, forecasts, load_members, make_inference
from jaxmat.commands.command import Command, Flags
from jaxmat.data.inputs import SOURCES_HELP, find_inputs
from jaxmat.errors import UserError
from jaxmat.report.rows import write_rows


def _define(values: Flags) -> None:
    model = (
        "A bundle, run directory or checkpoint; or several, separated by commas, that predict "
        "together."
    )
    flags.DEFINE_list("model", None, model, required=True, flag_values=values)
    flags.DEFINE_list("input", None, SOURCES_HELP, required=True, flag_values=values)
    flags.DEFINE_string("output", None, "CSV file to write.", required=True, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    members = load_members(values.model)
    chunks = watch(make_inference(members), find_inputs(values.input))
    try:
        write_rows(values.output, Forecast._fields, forecasts(members, chunks))
    except OSError as error:
        raise UserError(f"Cannot write --output={values.output}: {error}") from error


COMMAND = Command(__doc__, _define, _run)
