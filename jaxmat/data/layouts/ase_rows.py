"""Databases of ASE, SQLite and JSON, an extra: pip install jaxmat-transfer[ase]."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from jaxmat.crystals.occupancy import site_species
from jaxmat.data.layouts.cells import choose_id, labels_of
from jaxmat.data.layouts.opening import open_bytes
from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.errors import UserError

_AS_FRAMES = """\
  crystals = []
  for row in ase.db.connect({path!r}).select():
      crystals.append(row.toatoms())
      crystals[-1].info |= row.key_value_pairs
  ase.io.write('table.xyz', crystals)"""
_SYMBOLS = {element.Z: element.symbol for element in Element}


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
        from ase.calculators.calculator import all_properties
        from ase.db import connect
    except ImportError as reason:
        raise UserError(
            "it is a database of ASE; reading it needs ase (the extra 'ase' of this package), or "
            f"write it as extended XYZ:\n{_AS_FRAMES.format(path=str(path))}"
        ) from reason
    if _is_packed(path):
        raise UserError("it is a packed database of ASE: unpack it")
    try:
        # Entered, it closes its connection to the file; a SELECT alone leaves that open.
        with connect(str(path), type=kind, use_lock_file=False) as database:
            for row in database.select():
                yield _make_row(row, all_properties, wanted)
    except (OSError, ValueError, KeyError, sqlite3.Error) as reason:
        raise UserError("it is not a database that ase reads") from reason


def _is_packed(path: Path) -> bool:
    with path.open("rb") as raw, open_bytes(path) as unpacked:
        return raw.read(16) != unpacked.read(16)


def _make_row(row: Any, results: Sequence[str], wanted: Wanted) -> Row:
    data = row.get("data", {})
    calculated = {name: row[name] for name in results if np.ndim(row.get(name, [0])) == 0}
    labels = labels_of([*row.key_value_pairs.items(), *data.items(), *calculated.items()])
    numbers = row.numbers.tolist()
    # A number that no element has is refused where the row's crystal is made.
    symbols = [_SYMBOLS.get(number, f"Z={number}") for number in numbers]
    about = choose_id(labels, wanted.id_column), str(row.id), f"row {row.id}"
    try:
        # ASE itself keeps no occupancies; whoever does may have put them into the data.
        site_species(symbols, data.get("occupancy"), None)
    except UserError as problem:
        return Row(*about, "problem", str(problem), [], labels)
    structure = {
        "lattice_mat": row.cell.tolist(),
        "elements": symbols,
        "coords": row.positions.tolist(),
        "cartesian": True,
        "pbc": row.pbc.tolist(),
    }
    return Row(*about, "json", json.dumps(structure), [], labels)
