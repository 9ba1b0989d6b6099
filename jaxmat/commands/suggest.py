"""Suggests which crystals to label next.

    jaxmat suggest --model=DIR --input=candidates/ --output=next.csv --number=10
    jaxmat suggest --model=DIR --input=candidates/ --output=next.csv --goal=maximum --best=310

Without a goal it suggests the crystals whose labels would tell most about all candidates; with
--goal=maximum, minimum or a number, those with the largest expected improvement over the best label
so far; those that are not expected to be better are left out. Suggestions are chosen one after
another, so that they are not alike. Candidates that are also in --labelled are left out.

The column score is the share of the variance of all candidates that a label takes away; with a goal
the expected improvement, in the unit of the property. Both allow for the suggestions before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from absl import flags

from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.inference import Chunk, NothingUsable, watch
from jaxmat.bundles.intervals import INTERVALS
from jaxmat.bundles.predict import forecasts, load_members, make_inference
from jaxmat.bundles.suggest import Suggestion, parse_goal, posterior_covariance, suggest
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.output import refuse_overwriting, require_folder, writing
from jaxmat.commands.reading import define_input, read_input
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.errors import UserError, counted
from jaxmat.report.rows import write_rows
from jaxmat.runtime.files import rejoin_paths
from jaxmat.runtime.stopping import giving_up_at_once, stop_on_signals

_logger = logging.getLogger(__name__)

_MOST = 5000  # candidates: their covariance takes the square of this many numbers


def _define(values: Flags) -> None:
    model = (
        "A bundle, work directory or checkpoint; or several, separated by commas, that predict "
        "together. One has to have a Gaussian process on descriptors beside it, as every finished "
        "run has; models that come with the package have none."
    )
    flags.DEFINE_list("model", None, model, required=True, flag_values=values)
    define_input(values)
    flags.DEFINE_string("output", None, "CSV file to write.", required=True, flag_values=values)
    flags.DEFINE_integer("number", 10, "How many to suggest.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("property", "", "The one to label, of several.", flag_values=values)
    goal = "maximum, minimum or a number in the unit; left out: to learn most."
    flags.DEFINE_string("goal", "", goal, flag_values=values)
    flags.DEFINE_float("best", None, "The best label so far, with --goal.", flag_values=values)
    labelled = "Crystals that have a label already, given like --input."
    flags.DEFINE_list("labelled", [], labelled, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    goal = parse_goal(values.goal, values.best)
    members = load_members(rejoin_paths(values.model))
    name = _property(values.property, list(members[0].model.heads))
    process = _process(members, name)
    require_folder(values.output)
    inputs, labelled = rejoin_paths(values.input), rejoin_paths(values.labelled)
    header = ",".join(Suggestion._fields[:4]).encode()
    refuse_overwriting(values.output, [*inputs, *labelled], lambda start: start.startswith(header))
    inference = make_inference(members, descriptors=True)
    with stop_on_signals() as stop, writing(values.output):
        known = np.zeros((0, COLUMNS))
        if labelled:  # first, as there are fewer of them and a mistake shows at once
            try:
                there = list(stop.between(watch(inference, read_input(values, labelled))))
            except NothingUsable as problem:
                raise UserError(f"--labelled: {problem}") from problem
            known = _descriptors(there)
        chunks = _not_too_many(stop.between(watch(inference, read_input(values, inputs))))
        rows = [row for row in forecasts(members, chunks) if row.property == name]
        # Some of those that were read may be predicted beyond all numbers.
        reasons = [reason for chunk in chunks for reason in chunk.reasons]
        good = [not row.reason for row, why in zip(rows, reasons, strict=True) if not why]
        rows, descriptors = [r for r in rows if not r.reason], _descriptors(chunks)[good]
        with giving_up_at_once():
            covariance = posterior_covariance(process, descriptors)
            found = suggest(rows, descriptors, known, values.number, goal, covariance)
        write_rows(values.output, Suggestion._fields, found)
    if len(found) < min(values.number, len(rows)):
        better = "" if goal is None else ", or are not expected to be better than --best"
        _logger.warning(
            "%d suggestions were asked for, and there are %d: the other candidates have a label, "
            "are the same as one of these%s.",
            *(values.number, len(found), better),
        )
    chosen, of = counted(len(found), "suggestion"), counted(len(rows), "candidate")
    _logger.info("%s out of %s: %s", chosen, of, values.output)


def _not_too_many(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Returns the candidates, which are computed only as long as they can be compared.

    Raises:
        UserError: there are too many.
    """
    found, count = [], 0
    for chunk in chunks:
        found.append(chunk)
        count += sum(not reason for reason in chunk.reasons)
        if count > _MOST:
            raise UserError(
                f"There are more than {_MOST} candidates, which is what can be compared at once. "
                "Give fewer."
            )
    return found


def _property(asked: str, names: list[str]) -> str:
    if asked in names:
        return asked
    if asked:
        raise UserError(f"--property is {asked!r}; the model predicts {', '.join(names)}.")
    if len(names) > 1:
        raise UserError(f"The model predicts {', '.join(names)}: name one of them by --property.")
    return names[0]


def _process(members: Sequence[Bundle], name: str) -> dict[str, np.ndarray]:
    """Returns the process on descriptors of the first model that has one.

    Args:
        members: the models.
        name: of the property.

    Raises:
        UserError: none has one.
    """
    for member in members:
        if member.model.trunk["kind"] == "descriptors":
            return member.variables["params"][f"heads_{name}"]
        if name in member.variables.get(INTERVALS, {}):
            return member.variables[INTERVALS][name]
    raise UserError(
        "To suggest, a model needs a Gaussian process on descriptors beside it, which tells what "
        f"its training crystals say of others, and none of --model has one for {name}. Every "
        "finished run of train, finetune or choose leaves one; checkpoints, converted models, "
        "those that come with the package and bundles of older versions lack it. Train a model on "
        "your labels, or train it again."
    )


def _descriptors(chunks: list[Chunk]) -> np.ndarray:
    """Returns the descriptors of the crystals that were predicted, [crystals, columns]."""
    parts = [
        chunk.outputs[np.array([not reason for reason in chunk.reasons], bool), 0, -COLUMNS:]
        for chunk in chunks
    ]
    return np.concatenate(parts).astype(np.float64)


COMMAND = Command(__doc__, _define, _run)
