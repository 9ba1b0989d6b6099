"""From a table on disk to the rows that can be used; what is wrong with the others is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.findings import Findings
from jaxmat.data.layouts.rows import ALL, Wanted
from jaxmat.data.reading_pool import Limits
from jaxmat.data.rejects import (
    Rejected,
    describe_rejected,
    describe_remarks,
    take_usable,
    too_many_rejected,
)
from jaxmat.data.splits import labelled_rows
from jaxmat.data.tables import Table, TableRows, numeric_column, read_rows
from jaxmat.errors import UserError, listed
from jaxmat.experiments.workdir import write_rejected

REJECTED = "rejected.csv"
_TABLE = (
    'A table needs --data=FILE --target=COLUMN --unit=UNIT, "1" if it has none (in a config '
    "data.path, data.target and data.unit)."
)


class Property(NamedTuple):
    """A property that is learned from a table.

    Attributes:
        name: fit to name a head.
        column: of its labels.
        unit: of the labels, "1" if they have none.
        log: whether their logarithm is learned.
    """

    name: str
    column: str
    unit: str
    log: bool


class Labelled(NamedTuple):
    """The usable rows of a table that carry a label.

    Attributes:
        table: the rows.
        properties: what the labels are.
        labels: in the properties' units, NaN where missing, [rows, properties].
        rejected: rows left out because of their structures.
        numbers: which rows of the file they are.
        file_ids: ids of all rows of the file.
        too_large: how many crystals were left out for their size, by the reason.
    """

    table: Table
    properties: tuple[Property, ...]
    labels: np.ndarray
    rejected: list[Rejected]
    numbers: list[int]
    file_ids: tuple[str, ...]
    too_large: dict[str, int] = {}


def wanted_properties(config: ConfigDict) -> tuple[Property, ...]:
    """Returns the properties that a config asks for: one, or those in its part `properties`.

    Args:
        config: `data` of a config.

    Raises:
        UserError: the table, a column or a unit is not given.
    """
    _refuse_blank(config, "config.data", ("path",), _TABLE)
    if "properties" not in config:
        _refuse_blank(config, "config.data", ("target", "unit"), _TABLE)
        name = config.property or property_name(config.target)
        if not name:
            raise UserError(
                f"No name can be made of the column {config.target!r}: it has no letter or digit. "
                "Name the property in config.data.property."
            )
        return (Property(name, config.target, config.unit, config.get("log", False)),)
    if not config.properties:
        raise UserError(
            'config.data.properties is empty; name some: {"gap": {"target": COLUMN, "unit": UNIT, '
            '"log": False}, ...}.'
        )
    for name, one in config.properties.items():
        needed = 'Each property needs a column and a unit, "1" if it has none.'
        _refuse_blank(one, f"config.data.properties.{name}", ("target", "unit"), needed)
    return tuple(Property(n, p.target, p.unit, p.log) for n, p in config.properties.items())


def property_name(column: str) -> str:
    """Returns the name of the property whose labels are in a column, fit to name a head."""
    return re.sub(r"\W+", "_", column).strip("_")


def _refuse_blank(config: ConfigDict, place: str, fields: Sequence[str], needed: str) -> None:
    for field in fields:
        if not config[field].strip():
            raise UserError(f"{place}.{field} is not set. {needed}")


def find_labelled(config: ConfigDict, workdir: Path | None, findings: Findings) -> Labelled:
    """Reads a table and keeps the usable, labelled rows.

    Args:
        config: `data` of a config.
        workdir: gets rejected.csv, whether this goes well or not; None: it is not written.
        findings: get what is wrong with the ids, the labels and the structures.

    Raises:
        UserError: there is no table to speak of.
    """
    properties = wanted_properties(config)
    file = _read(config, tuple(one.column for one in properties))
    _look_at_ids(file, config.id_column, findings)
    labels = np.full((len(file.ids), len(properties)), np.nan)
    read = (file.contents.sites > 0) | (np.array(file.reasons) != "")
    for i, one in enumerate(properties):
        try:
            labels[:, i] = numeric_column(file, one.column)
        except UserError as problem:
            findings.refusals.append(str(problem))
            labels[read, i] = 0.0  # what is wrong with the structures is found all the same
        else:
            if np.isnan(labels[:, i]).all():
                findings.refusals.append(f"no row has a label in column {one.column!r}")
    # A row without a label is not read: if something is wrong with it, its cells cannot be told.
    wanted = np.union1d(labelled_rows(labels), np.flatnonzero(file.reasons)).tolist()
    if not wanted:
        findings.stop_if_refused()  # there is nothing to find

    table, numbers, rejected = take_usable(file, wanted, config.max_sites)
    if workdir:
        write_rejected(workdir / REJECTED, rejected)
    if refusal := too_many_rejected(rejected, len(wanted), config.max_rejected_fraction):
        findings.refusals.append(refusal)
    elif rejected:
        findings.remarks.append(describe_rejected(rejected, len(wanted)))
    too_large = {}
    if large := len(wanted) - len(numbers) - len(rejected):
        too_large = {f"more than {config.max_sites} sites": large}
        findings.remarks.append(
            f"{large} of {len(wanted)} crystals have more than {config.max_sites} sites "
            "(config.data.max_sites) and are left out"
        )
    if remarks := describe_remarks(file, numbers):
        findings.remarks.append(remarks)
    return Labelled(
        table=table,
        properties=properties,
        labels=labels[numbers],
        rejected=rejected,
        numbers=numbers,
        file_ids=file.ids,
        too_large=too_large,
    )


def _look_at_ids(file: TableRows, id_column: str, findings: Findings) -> None:
    """Refuses ids that cannot be used where they were asked for; else tells that they are not."""
    if repeated := file.repeated_ids():
        findings.refusals.append(
            f"ids that appear more than once; make them unique:\n{listed(repeated)}"
        )
    chosen = id_column not in ("", ALL.id_column)
    if chosen and id_column not in file.columns:
        findings.refusals.append(
            f"there is no column {id_column!r} (config.data.id_column); columns: "
            f"{', '.join(file.columns) or 'none'}"
        )
    elif file.unused_ids and (chosen or id_column in file.columns):
        findings.refusals.append(
            f"the ids in column {id_column!r} cannot be used: {file.unused_ids}; mend them, or "
            'set config.data.id_column to "", and rows are called by their files or numbers'
        )
    elif file.unused_ids:
        findings.remarks.append(
            f"the table's ids are not used: {file.unused_ids}; rows are called by their files or "
            "numbers"
        )


def _read(config: ConfigDict, columns: tuple[str, ...]) -> TableRows:
    """Reads the rows of a table that have a label in one of some columns."""
    wanted = Wanted(config.id_column, columns)
    limits = Limits(config.read_seconds, config.read_megabytes)
    folder = Path(config.graph_store) / "tables" if config.graph_store else None
    return read_rows(config.path, wanted, limits, config.read_workers or None, folder)
