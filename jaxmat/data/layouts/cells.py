"""The cells of a table: which hold structures, which are ids, which are missing, which numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxmat.data.formats.dicts import is_structure
from jaxmat.data.formats.recognise import looks_like_structure
from jaxmat.errors import UserError
from jaxmat.values import written_number

MISSING = ("", "na", "nan", "none", "null", "n/a", "<na>", "#n/a", "nat", "-", "--", "?")
# Columns of ids, where none is named.
ID_NAMES = ("material_id", "jid", "entry_id", "mp_id", "mpid", "id")
STRUCTURE_NAMES = ("structure", "atoms")
# Keys of records whose members are labels: of entries, and of structures.
_NESTED = ("data", "properties")


def number(value: Any) -> float | None:
    """Returns a cell's number as written, NaN if it is missing, None if it is not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if not isinstance(value, str):
        return None
    return math.nan if is_missing(value) else written_number(value)


def is_missing(cell: str) -> bool:
    """Whether a text says that there is no value."""
    return cell.strip().lower() in MISSING


def holds_structure(value: object) -> bool:
    """Whether a cell holds a structure: a dict, an entry with one, or the text of a file."""
    if isinstance(value, dict):
        return is_structure(value) or is_structure(value.get("structure"))
    return isinstance(value, str) and looks_like_structure(value)


def choose_structure(names: Sequence[str]) -> str:
    """Returns the column of the structures, of those that hold some.

    Raises:
        UserError: there are several, and none is called structure or atoms.
    """
    known = [name for name in STRUCTURE_NAMES if name in names]
    if known:
        return known[0]
    if len(names) > 1:
        raise UserError(
            f"several columns hold structures ({', '.join(names[:5])}): rename the one to use to "
            "'structure'"
        )
    return names[0]


def choose_id(cells: Mapping[str, Any], id_column: str) -> str:
    """Returns the id of a row, "" where no column holds one.

    Args:
        cells: of the row, by column.
        id_column: column of the ids, tried before the usual ones, whose case does not matter; ""
            for none.
    """
    if not id_column:
        return ""
    lower = {name.lower(): value for name, value in cells.items()}
    for value in (cells.get(id_column), *map(lower.get, ID_NAMES)):
        if isinstance(value, (str, int)) and not is_missing(str(value)):
            return str(value)
    return ""


def labels_of(cells: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the cells that may be labels: numbers, texts and lists of texts."""
    found: dict[str, Any] = {}
    for name, value in cells:
        if name in found:
            continue
        if name in _NESTED and isinstance(value, dict):
            more = labels_of(value.items())
            found |= {key: one for key, one in more.items() if key not in found}
        elif value is None or isinstance(value, (str, int, float)) or is_text_list(value):
            found[name] = value
    return found


def name_columns(width: int, structure: int, wanted: Sequence[str] | None) -> list[str]:
    """Returns names for the columns of a table without any.

    Args:
        width: how many there are.
        structure: which of them has the structures.
        wanted: names of labels, which are given where there are as many others.
    """
    labels = [i for i in range(width) if i != structure]
    if wanted is not None and len(wanted) == len(labels) and not _are_defaults(wanted):
        given = list(wanted)
    else:
        given = ["target"] if len(labels) == 1 else [f"target_{i + 1}" for i in range(len(labels))]
    names = [""] * width
    for i, name in zip(labels, given, strict=True):
        names[i] = name
    names[structure] = "file" if "file" not in given else "structure file"
    return names


def _are_defaults(names: Sequence[str]) -> bool:
    return any(re.fullmatch(r"target(_\d+)?", name) for name in names)


def tell_apart(names: Sequence[str]) -> list[str]:
    """Returns names of columns; those that occur more than once get the number of their column.

    So none is taken for another, and columns that nobody asks for do no harm.
    """
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} (column {number})"
        for number, name in enumerate(names, start=1)
    ]


def is_text_list(value: object) -> bool:
    """Whether a cell holds a list of texts, such as elements, by which rows may be split."""
    return isinstance(value, list) and all(isinstance(item, (str, int)) for item in value[:100])
