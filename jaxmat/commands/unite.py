"""Merges tables of one property each into one table of several, with blanks for missing labels.

    jaxmat unite --tables=DIR --output=union.json.gz

Rows of several tables that are the same structure become one row; see `jaxmat.data.union`. If they
disagree about a label, the first is kept, and conflicts.csv beside the output lists both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from jaxmat.commands.command import Command, Flags
from jaxmat.commands.output import refuse_overwriting, require_folder, writing
from jaxmat.data.union import is_union
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.tables import (
    TableFile,
    find_tables,
    refuse_other_conflicts,
    unite_tables,
    write_united,
)
from jaxmat.runtime.stopping import giving_up_on_signals


def choose_tables(
    tables: Mapping[str, TableFile], properties: Sequence[str]
) -> dict[str, TableFile]:
    """Returns the tables of some properties in their order, or all where none is named.

    Raises:
        UserError: there is no such table.
    """
    if unknown := [name for name in properties if name not in tables]:
        raise UserError(f"--properties: no table {', '.join(unknown)} among {', '.join(tables)}.")
    return {name: tables[name] for name in properties or tables}


def check_output(output: Path) -> None:
    """Finds out now rather than after minutes whether a table can be written.

    Raises:
        UserError: there is no such folder, the name has another suffix than .json.gz, or the file
            beside it that conflicts go to is something else.
    """
    if not output.name.endswith(".json.gz"):
        raise UserError(f"--output={output}: the name of the table has to end in .json.gz.")
    require_folder(output)
    refuse_other_conflicts(output)


def _define(values: Flags) -> None:
    tables = (
        "A folder with tables, files NAME.* or folders NAME, and for each a file splits/NAME.json: "
        '{"target_column": COLUMN, "unit": UNIT}; or "bundled".'
    )
    flags.DEFINE_string("tables", None, tables, required=True, flag_values=values)
    properties = "NAMEs of the tables to merge, separated by commas; by default all."
    flags.DEFINE_list("properties", [], properties, flag_values=values)
    output = "File to write, *.json.gz."
    flags.DEFINE_string("output", None, output, required=True, flag_values=values)


def _run(values: Flags, arguments: list[str]) -> None:
    output = Path(values.output)
    check_output(output)
    tables = choose_tables(find_tables(values.tables), values.properties)
    refuse_overwriting(output, [one.path for one in tables.values()], is_union)
    with giving_up_on_signals(), writing(output):
        write_united(output, unite_tables(tables, defaults.data()))


COMMAND = Command(__doc__, _define, _run)
