"""From a table on disk to the rows that can be used; what is wrong with the others is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.findings import Findings
from jaxmat.data.rejects import Rejected, describe_rejected, read_usable, too_many_rejected
from jaxmat.data.splits import labelled_rows
from jaxmat.data.tables import Table, numeric_column, open_table
from jaxmat.errors import UserError, listed
from jaxmat.experiments.workdir import write_rejected

REJECTED = "rejected.csv"


class Labelled(NamedTuple):
    """The usable rows of a table that carry a label of one property.

    Attributes:
        table: the rows.
        labels: in the property's unit, [rows].
        property: name of the property, fit to name a head.
        rejected: rows left out because of their structures.
        numbers: which rows of the file they are.
        file_ids: ids of all rows of the file.
    """

    table: Table
    labels: np.ndarray
    property: str
    rejected: list[Rejected]
    numbers: list[int]
    file_ids: tuple[str, ...]


def find_labelled(config: ConfigDict, workdir: Path | None, findings: Findings) -> Labelled:
    """Reads a table and keeps the usable, labelled rows.

    Args:
        config: `data` of a config.
        workdir: gets rejected.csv, whether this goes well or not; None: it is not written.
        findings: get what is wrong with the ids, the labels and the structures.

    Raises:
        UserError: there is no table to speak of.
    """
    for field in ("path", "target", "unit"):
        if not config[field].strip():
            raise UserError(
                f"config.data.{field} is not set. A table needs --config.data.path=FILE "
                '--config.data.target=COLUMN --config.data.unit=UNIT ("1" if it has none).'
            )
    file = open_table(config.path, config.id_column)
    if repeated := file.repeated_ids():
        findings.refusals.append(
            f"ids that appear more than once; make them unique:\n{listed(repeated)}"
        )
    try:
        labels = numeric_column(file, config.target)
    except UserError as problem:
        findings.refusals.append(str(problem))
        labels = np.zeros(len(file.ids))  # what is wrong with the structures is found all the same
    wanted = labelled_rows(labels).tolist()
    if not wanted:
        findings.refusals.append(f"no row has a label in column {config.target!r}")

    table, numbers, rejected = read_usable(file, wanted, config.max_sites)
    if workdir:
        write_rejected(workdir / REJECTED, rejected)
    if refusal := too_many_rejected(rejected, len(wanted), config.max_rejected_fraction):
        findings.refusals.append(refusal)
    elif rejected:
        findings.remarks.append(describe_rejected(rejected, len(wanted)))
    return Labelled(
        table=table,
        labels=labels[numbers],
        property=config.property or re.sub(r"\W+", "_", config.target).strip("_"),
        rejected=rejected,
        numbers=numbers,
        file_ids=file.ids,
    )
