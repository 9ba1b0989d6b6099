"""Predicts properties of crystals.

    jaxmat predict --model=DIR --input=structures/ --output=predictions.csv

predictions.html, beside the file, shows them.

From Python: jaxmat.load("DIR").predict(structures).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from jaxmat.bundles.inference import watch
from jaxmat.bundles.predict import Forecast, forecasts, load_members, make_inference
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.output import refuse_overwriting, require_folder, writing
from jaxmat.commands.reading import define_input, read_input
from jaxmat.errors import UserError
from jaxmat.report.forecast import Predicted, forecast_page
from jaxmat.report.names import short_names
from jaxmat.report.rows import write_rows
from jaxmat.report.settings import command_line
from jaxmat.runtime.files import rejoin_paths, whole_file
from jaxmat.runtime.stopping import stop_on_signals

_logger = logging.getLogger(__name__)

_MOST_SHOWN = 10_000  # predictions on the page; the file has all


def _define(values: Flags) -> None:
    model = (
        "A bundle, run directory or checkpoint; or several, separated by commas, that predict "
        "together."
    )
    flags.DEFINE_list("model", None, model, required=True, flag_values=values)
    define_input(values)
    flags.DEFINE_string("output", None, "CSV file to write.", required=True, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    members = load_members(rejoin_paths(values.model))
    output = Path(values.output)
    if output.suffix == ".html":
        raise UserError(f"--output={output}: that is the name of the page; give a *.csv.")
    require_folder(output)
    inputs = rejoin_paths(values.input)
    refuse_overwriting(output, inputs)
    shown: list[Forecast] = []
    with stop_on_signals() as stop, writing(output):
        chunks = stop.between(watch(make_inference(members), read_input(values, inputs)))

        def rows() -> Iterator[Forecast]:
            for row in forecasts(members, chunks):
                if len(shown) < _MOST_SHOWN:
                    shown.append(row)
                yield row

        write_rows(output, Forecast._fields, rows())
        _logger.info("predictions %s", output)
        if output.is_file():  # not a pipe, which leaves nothing
            _write_page(output.with_suffix(".html"), shown, values)


def _write_page(page: Path, shown: Sequence[Forecast], values: Flags) -> None:
    text = forecast_page(
        [Predicted(f.id, f.property, f.unit, f.prediction, f.low, f.high, f.reason) for f in shown],
        models=list(short_names(values.model).values()),
        output=Path(values.output).name,
        command=command_line(sys.argv),
        complete=len(shown) < _MOST_SHOWN,
    )
    with whole_file(page) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    _logger.info("report      %s", page)


COMMAND = Command(__doc__, _define, _run)
