"""Databases of ASE, SQLite and JSON, an extra: pip install jaxmat-transfer[ase]."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from jaxmat.data.layouts.cells import choose_id, labels_of
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError


def read_ase(path: Path, kind: str, wanted: Wanted) -> Iterator[Row]:
    """Yields the rows of a database; labels are key-value pairs and what was calculated.

    Args:
        path: of the file.
        kind: "db" for SQLite, or "json".
        wanted: what is asked for.

    Raises:
        UserError: ase is not installed, or the file is no such database.
    """
    try:
        from ase.db import connect
    except ImportError as reason:
        raise UserError(
            "it is a database of ASE; reading it needs ase (the extra 'ase' of this package), or "
            "write it as extended XYZ:\n"
            f"  rows = ase.db.connect({str(path)!r}).select()\n"
            "  ase.io.write('table.xyz', [row.toatoms(add_additional_information=True) for row in "
            "rows])"
        ) from reason
    try:
        # Entered, it closes its connection to the file; a SELECT alone leaves that open.
        with connect(str(path), type=kind, use_lock_file=False) as database:
            for row in database.select():
                labels = labels_of(
                    [
                        *row.key_value_pairs.items(),
                        *row.get("data", {}).items(),
                        ("energy", row.get("energy")),
                    ]
                )
                structure = {
                    "lattice_mat": row.cell.tolist(),
                    "elements": list(row.symbols),
                    "coords": row.positions.tolist(),
                    "cartesian": True,
                    "pbc": row.pbc.tolist(),
                }
                id = choose_id(labels, wanted.id_column)
                place = f"row {row.id}"
                yield Row(id, str(row.id), place, "json", json.dumps(structure), [], labels)
    except (OSError, ValueError, KeyError, sqlite3.Error) as reason:
        raise UserError("it is not a database that ase reads") from reason
