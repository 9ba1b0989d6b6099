"""What predictions are asked for: files, folders, tables or structures, one by one, in order."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pymatgen.core import IStructure, Structure

from jaxmat.crystals.objects import as_structure, is_crystal
from jaxmat.data.structures import is_structure_file, structure_readers
from jaxmat.data.tables import BUNDLED, open_table
from jaxmat.errors import UserError

# Any is an object of ASE, see `as_structure`.
Source = str | Path | IStructure | Any
SOURCES_HELP = (
    "Files (CIF, POSCAR, pymatgen JSON, extended XYZ), folders with all such files in them and "
    "below, tables (Matbench JSON, CSV) or bundled:NAME."
)

_logger = logging.getLogger(__name__)


class Input(NamedTuple):
    """One crystal, not yet read.

    Attributes:
        id: the path of a file (with @0, @1, ... for the frames of one that holds several), the id
            of a table's row, or the number of a structure.
        read: returns the structure; raises UserError where there is none.
    """

    id: str
    read: Callable[[], Structure]


def find_inputs(sources: Source | Iterable[Source]) -> list[Input]:
    """Returns every crystal of some sources, in order; what cannot be opened is one that fails.

    Args:
        sources: one or several, each of them
            a file: CIF, POSCAR, pymatgen JSON or extended XYZ, see `read_structure`;
            a folder: every such file in it and below, in the order of their paths;
            a table: Matbench *.json.gz or *.json, *.csv or "bundled:NAME", see `open_table`;
            a crystal in memory, see `as_structure`.
    """
    if isinstance(sources, (str, Path)) or is_crystal(sources):
        sources = [sources]
    inputs: list[Input] = []
    for number, source in enumerate(sources):
        if not isinstance(source, (str, Path)):
            inputs.append(Input(str(number), partial(as_structure, source)))
        elif Path(source).is_dir():
            inputs += _find_in_folder(Path(source))
        else:
            inputs += _open(str(source))
    return inputs


def _find_in_folder(folder: Path) -> list[Input]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    known = [path for path in files if is_structure_file(path)]
    if len(known) < len(files):
        _logger.info(
            "%s: %d files whose names do not say a structure format are left out",
            folder,
            len(files) - len(known),
        )
    if not known:
        return [_failing(str(folder), "the folder holds no CIF, POSCAR, JSON or extended XYZ")]
    return [entry for path in known for entry in _open(str(path))]


def _open(source: str) -> list[Input]:
    path = Path(source)
    try:
        if source.startswith(BUNDLED) or _is_table(path):
            rows = open_table(source)
            return [Input(*row) for row in zip(rows.ids, rows.readers, strict=True)]
        if not path.is_file():
            raise UserError(f"there is no file or folder {source}")
        readers = structure_readers(path)
    except (UserError, OSError) as problem:
        return [_failing(source, str(problem))]
    if len(readers) == 1:
        return [Input(source, readers[0])]
    return [Input(f"{source}@{frame}", read) for frame, read in enumerate(readers)]


def _is_table(path: Path) -> bool:
    if path.suffix != ".json":
        return path.name.endswith((".csv", ".json.gz"))
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # reading it as a structure tells what is wrong
    return isinstance(content, dict) and "columns" in content


def _failing(id: str, problem: str) -> Input:
    return Input(id, partial(_fail, problem))


def _fail(problem: str) -> NoReturn:
    raise UserError(problem)
