"""The tables of a study as one table of several properties."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.union import Conflict, Labelling, Union, unite, write_union
from jaxmat.errors import UserError, listed
from jaxmat.experiments.study.samples import TableFile, read_table
from jaxmat.report.predictions import write_rows

CONFLICTS = "conflicts.csv"

_logger = logging.getLogger(__name__)


def unite_tables(tables: Mapping[str, TableFile], data: ConfigDict) -> Union:
    """Reads tables and unites them; logs what came of it.

    Args:
        tables: by key; their rows are named by the index.
        data: `data` of a config, of which max_sites and max_rejected_fraction count.

    Raises:
        UserError: see `read_labelled` and `unite`.
    """
    labellings = {key: _read(table, data) for key, table in tables.items()}
    rows = sum(len(labelling.labels) for labelling in labellings.values())
    _logger.info("Uniting %d rows of %d tables", rows, len(tables))
    union = unite(labellings)
    if union.mixed_ids:
        _logger.warning(
            "%d material ids stand for several compositions; their rows are not united:\n%s",
            len(union.mixed_ids),
            listed(union.mixed_ids),
        )
    columns = union.table.columns
    counts = {key: np.isfinite(columns[key]).sum() for key in tables}
    _logger.info(
        "%d structures (%d rows merged into others); labels: %s; conflicts: %d",
        len(union.table.ids),
        rows - len(union.table.ids),
        ", ".join(f"{key} {count}" for key, count in counts.items()),
        len(union.conflicts),
    )
    return union


def _read(table: TableFile, data: ConfigDict) -> Labelling:
    labelled = read_table(table, data)
    return Labelling(labelled.table, labelled.labels[:, 0])


def write_files(output: Path, union: Union) -> None:
    """Writes a union table and, where there are any, conflicts.csv beside it.

    The conflicts of an earlier table go.

    Args:
        output: *.json.gz.
        union: what to write.

    Raises:
        UserError: one cannot be written.
    """
    conflicts = output.with_name(CONFLICTS)
    try:
        write_union(output, union)
        conflicts.unlink(missing_ok=True)
        if union.conflicts:
            write_rows(conflicts, Conflict._fields, union.conflicts)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error}") from error
