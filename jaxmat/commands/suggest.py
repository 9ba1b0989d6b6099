"""Suggests which crystals to label next.

    jaxmat suggest --model=DIR --input=candidates/ --output=next.csv --number=10
    jaxmat suggest --model=DIR --input=candidates/ --output=next.csv --goal=maximum --best=310

Without a goal the crystals are suggested that the model is least sure of; with --goal=maximum,
minimum or a number those with the largest expected improvement on the best label that you have. All
suggestions differ from each other. Candidates that are in --labelled, too, are passed over.
"""

from __future__ import annotations

import logging

import numpy as np
from absl import flags

from jaxmat.bundles.inference import Chunk, watch
from jaxmat.bundles.predict import forecasts, load_members, make_inference
from jaxmat.bundles.suggest import Suggestion, parse_goal, suggest
from jaxmat.commands.command import Command, Flags
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.data.inputs import SOURCES_HELP, find_inputs
from jaxmat.errors import UserError
from jaxmat.report.rows import write_rows

_logger = logging.getLogger(__name__)


def _define(values: Flags) -> None:
    model = "A bundle, run directory or checkpoint; or several, separated by commas."
    flags.DEFINE_list("model", None, model, required=True, flag_values=values)
    flags.DEFINE_list("input", None, SOURCES_HELP, required=True, flag_values=values)
    flags.DEFINE_string("output", None, "CSV file to write.", required=True, flag_values=values)
    flags.DEFINE_integer("number", 10, "Suggestions.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("property", "", "Of several, the one to label.", flag_values=values)
    goal = "maximum, minimum or a number in the unit; left out: to learn most."
    flags.DEFINE_string("goal", "", goal, flag_values=values)
    flags.DEFINE_float("best", None, "The best label so far, with --goal.", flag_values=values)
    labelled = "Crystals that have a label; as --input."
    flags.DEFINE_list("labelled", [], labelled, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    goal = parse_goal(values.goal, values.best)
    members = load_members(values.model)
    name = _property(values.property, list(members[0].model.heads))
    inference = make_inference(members, descriptors=True)
    chunks = list(watch(inference, find_inputs(values.input)))
    rows = [row for row in forecasts(members, chunks) if row.property == name and not row.reason]
    known = np.zeros((0, COLUMNS))
    if values.labelled:
        known = _descriptors(list(watch(inference, find_inputs(values.labelled))))
    found = suggest(rows, _descriptors(chunks), known, values.number, goal)
    try:
        write_rows(values.output, Suggestion._fields, found)
    except OSError as error:
        raise UserError(f"Cannot write --output={values.output}: {error}") from error
    _logger.info("%d suggestions of %d candidates: %s", len(found), len(rows), values.output)


def _property(asked: str, names: list[str]) -> str:
    if asked in names:
        return asked
    if asked or len(names) > 1:
        raise UserError(f"--property is {asked!r}; the model predicts {', '.join(names)}.")
    return names[0]


def _descriptors(chunks: list[Chunk]) -> np.ndarray:
    """Returns the descriptors of the crystals that were predicted, [crystals, columns]."""
    parts = [
        chunk.outputs[np.array([not reason for reason in chunk.reasons], bool), 0, -COLUMNS:]
        for chunk in chunks
    ]
    return np.concatenate(parts).astype(np.float64)


COMMAND = Command(__doc__, _define, _run)
