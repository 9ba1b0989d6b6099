"""The tables of a study: where they are, what they hold, and all of them as one."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.union import Conflict, Labelling, Union, unite, write_union
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.labelled import Labelled
from jaxmat.experiments.prepare import read_labelled
from jaxmat.report.rows import read_rows, write_rows
from jaxmat.runtime.files import read_json, reason
from jaxmat.values import whole

CONFLICTS = "conflicts.csv"

_logger = logging.getLogger(__name__)


class TableFile(NamedTuple):
    """A table of one property.

    Attributes:
        key: its name in the study.
        path: as in `data.path` of a config.
        target: column of the labels.
        unit: of the labels.
        lists: what its splits file says of test crystals and trials, {} for nothing.
    """

    key: str
    path: str
    target: str
    unit: str
    lists: Mapping[str, Any]


BUNDLED = {
    key: TableFile(key, f"bundled:{key}", target, unit, {})
    for key, target, unit in (
        ("dielectric", "poly_total", "1"),
        ("piezoelectric", "eij_max", "C/m^2"),
        ("formation_energy", "e_form", "eV/atom"),
    )
}


def find_tables(place: str) -> dict[str, TableFile]:
    """Returns the tables of a study by key.

    Args:
        place: "bundled", or a folder with tables, files NAME.* or folders NAME, and for each a file
            splits/NAME.json: {"target_column": ..., "unit": ...} and, where the crystals
            are not to be drawn, "test": [ids], "trials": {trial: {size: [ids]}} and "n_train_val":
            {size: [training, validation]}. Ids are the index of the table.

    Raises:
        UserError: there is no such folder, or a file in it cannot be used.
    """
    if place == "bundled":
        return dict(BUNDLED)
    tables, splits = {}, sorted((Path(place) / "splits").glob("*.json"))
    files = {file: _table_of(Path(place), file.stem) for file in splits}
    if not any(files.values()):
        raise UserError(
            f"{place} has no table NAME.* with a file splits/NAME.json beside it, "
            '{"target_column": COLUMN, "unit": UNIT}.'
        )
    for file, path in files.items():
        if path is None:
            _logger.warning("%s is left out: there is no table %s.* in %s", file, file.stem, place)
            continue
        lists = _read_lists(file)
        about = str(path), lists["target_column"], lists["unit"]
        tables[file.stem] = TableFile(file.stem, *about, lists)
    return tables


def _table_of(place: Path, name: str) -> Path | None:
    """Returns the table of a name in a folder, None where there is none."""
    usual = [place / f"{name}{end}" for end in (".json.gz", ".json", ".csv")]
    others = [place / name, *sorted(place.glob(f"{glob.escape(name)}.*"))]
    return next((path for path in [*usual, *others] if path.exists()), None)


def read_table(table: TableFile, data: ConfigDict) -> Labelled:
    """Returns the usable rows of a table; their ids are its index.

    Args:
        table: the table.
        data: `data` of the study's config.

    Raises:
        UserError: see `read_labelled`.
    """
    config = defaults.data(path=table.path, target=table.target, unit=table.unit)
    names = ("max_sites", "max_rejected_fraction", "read_seconds", "read_megabytes", "read_workers")
    config.update(id_column="", **{name: data[name] for name in names})
    return read_labelled(config)


def unite_tables(tables: Mapping[str, TableFile], data: ConfigDict) -> Union:
    """Reads tables and unites them; logs what came of it.

    Args:
        tables: by key; their rows are named by the index.
        data: `data` of a config, of which what concerns reading counts.

    Raises:
        UserError: see `read_labelled` and `unite`.
    """
    labellings = {}
    problems = []
    for key, table in tables.items():
        try:
            labelled = read_table(table, data)
        except UserError as problem:
            problems.append(str(problem))
        else:
            labellings[key] = Labelling(labelled.table, labelled.labels[:, 0])
    if problems:
        raise UserError("\n".join(problems))
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


def write_united(output: Path, union: Union) -> None:
    """Writes a union table and, where there are any, conflicts.csv beside it.

    The conflicts of an earlier table go.

    Args:
        output: *.json.gz.
        union: what to write.

    Raises:
        UserError: one cannot be written.
    """
    conflicts = output.with_name(CONFLICTS)
    refuse_other_conflicts(output)
    try:
        write_union(output, union)
        conflicts.unlink(missing_ok=True)
        if union.conflicts:
            write_rows(conflicts, Conflict._fields, union.conflicts)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {reason(error)}") from error


def refuse_other_conflicts(output: Path) -> None:
    """Checks that conflicts.csv beside a union table is ours, which is replaced or goes.

    Raises:
        UserError: it is something else.
    """
    conflicts = output.with_name(CONFLICTS)
    if not conflicts.exists():
        return
    try:
        read_rows(conflicts, Conflict._fields)
    except UserError as error:
        raise UserError(
            f"{conflicts} is not of an earlier table, and would be lost; move it, or write the "
            "table to another folder."
        ) from error


def _read_lists(file: Path) -> dict[str, Any]:
    """Reads a splits file and checks what is read from it later."""
    lists = read_json(file)
    if not {"target_column", "unit"} <= lists.keys():
        raise UserError(f'{file}: expected {{"target_column": ..., "unit": ..., ...}}')
    sound = {
        "target_column": isinstance(lists["target_column"], str) and bool(lists["target_column"]),
        'unit (text, "1" where there is none)': isinstance(lists["unit"], str)
        and bool(lists["unit"]),
        "test": isinstance(lists.get("test", []), list),
        "trials": all(map(_holds_lists, _values(lists.get("trials", {})))),
        "other_lists": _holds_lists(lists.get("other_lists", {})),
        "n_train_val (two whole numbers, 1 or more)": all(
            isinstance(pair, list) and len(pair) == 2 and all(map(whole(1).holds, pair))
            for pair in _values(lists.get("n_train_val", {}))
        ),
    }
    if wrong := [name for name in sound if not sound[name]]:
        raise UserError(f"{file}: not of the form expected: {', '.join(wrong)}; see find_tables")
    return lists


def _values(content: Any) -> list[Any]:
    """Returns the values of a JSON object; of anything else, itself, which then is wrong."""
    return list(content.values()) if isinstance(content, dict) else [content]


def _holds_lists(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(v, list) for v in content.values())
