"""Predicts properties of crystals.

    jaxmat predict --model=DIR --input=structures/ --output=predictions.csv

predictions.html, beside the file, shows them. Rows are written as they are made, in constant
memory. If it is stopped or killed, the same command with --resume goes on and ends with the same
file.

From Python: jaxmat.load("DIR").predict(structures).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from jaxmat.batch import Shape
from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.inference import Inference, NothingUsable, watch
from jaxmat.bundles.predict import (
    Forecast,
    blank_uncertainties,
    fingerprint,
    forecast_of,
    forecasts,
    load_members,
    make_inference,
)
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.journal import Journal, journal
from jaxmat.commands.output import refuse_overwriting, require_folder, writing
from jaxmat.commands.reading import MODEL_HELP, define_input, read_input
from jaxmat.data.reading import Reading
from jaxmat.errors import UserError
from jaxmat.report.forecast import Predicted, forecast_page, is_forecast
from jaxmat.report.names import short_names
from jaxmat.report.rows import write_rows
from jaxmat.report.settings import command_line
from jaxmat.runtime.files import rejoin_paths, whole_file
from jaxmat.runtime.stopping import stop_on_signals

_logger = logging.getLogger(__name__)

_MOST_SHOWN = 10_000  # predictions on the page; the file has all
_KEPT = _MOST_SHOWN + 1  # one more tells that there are more


def _define(values: Flags) -> None:
    model = f"{MODEL_HELP} Several, separated by commas, predict together."
    flags.DEFINE_list("model", None, model, required=True, flag_values=values)
    define_input(values)
    flags.DEFINE_string("output", None, "CSV file to write.", required=True, flag_values=values)
    resume = "Resume the same prediction where it was stopped."
    flags.DEFINE_bool("resume", False, resume, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    members = load_members(rejoin_paths(values.model))
    output = Path(values.output)
    if output.suffix == ".html":
        raise UserError(f"--output={output}: that is the name of the page; give a *.csv.")
    require_folder(output)
    inputs = rejoin_paths(values.input)
    header = ",".join(Forecast._fields[:4]).encode()
    refuse_overwriting(output, inputs, lambda start: start.startswith(header))
    keeps = not output.exists() or output.is_file()  # a pipe or a device does not
    page = output.with_name(output.name.removesuffix(".csv") + ".html")
    if keeps:
        refuse_overwriting(page, inputs, is_forecast, "The page ")
    for note in blank_uncertainties(members):
        _logger.warning("%s", note)
    inference = make_inference(members)
    readings = read_input(values, inputs)
    with stop_on_signals() as stop, writing(output):
        if not keeps:
            chunks = stop.between(watch(inference, readings))
            write_rows(output, Forecast._fields, forecasts(members, chunks))
            return
        with journal(output, Forecast._fields, fingerprint(members), values.resume) as book:
            shown = _go_on(book, inference, members, readings)
            before = book.rows
            try:
                for chunk in stop.between(watch(inference, readings, before)):
                    rows = list(forecasts(members, [chunk]))
                    shown += rows[: _KEPT - len(shown)]
                    book.write(rows, [list(shape) for shape in inference.shapes])
            except NothingUsable:
                book.discard()
                raise
        _logger.info("predictions %s", output)
        _write_page(page, shown, values)


def _go_on(
    book: Journal, inference: Inference, members: Sequence[Bundle], readings: Iterator[Reading]
) -> list[Forecast]:
    """Passes over the inputs that a journal has the rows of; returns the first rows.

    Raises:
        UserError: the inputs are others.
    """
    inference.shapes += [Shape(*sizes) for sizes in book.state or []]
    shown: list[Forecast] = []
    for number, row in enumerate(book.written()):
        if len(shown) < _KEPT:
            shown.append(forecast_of(row))
        if number % len(members[0].model.heads):
            continue  # another property of the same input
        if (entry := next(readings, None)) is None or entry.id != row["id"]:
            found = "the end" if entry is None else entry.id
            raise UserError(
                f"--resume: the inputs have changed: found {found} where {row['id']} was before; "
                "start without --resume."
            )
    return shown


def _write_page(page: Path, shown: Sequence[Forecast], values: Flags) -> None:
    text = forecast_page(
        [
            Predicted(f.id, f.property, f.unit, f.prediction, f.low, f.high, f.reason, f.remark)
            for f in shown[:_MOST_SHOWN]
        ],
        models=list(short_names(values.model).values()),
        output=Path(values.output).name,
        command=command_line(sys.argv),
        complete=len(shown) <= _MOST_SHOWN,
    )
    with whole_file(page) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    _logger.info("report      %s", page)


COMMAND = Command(__doc__, _define, _run)
