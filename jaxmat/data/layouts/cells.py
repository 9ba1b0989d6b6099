"""The cells of a table: which hold structures, which are ids, which are missing, which numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxmat.data.formats.dicts import is_structure
from jaxmat.data.formats.recognise import looks_like_structure
from jaxmat.errors import UserError
from jaxmat.values import written_number

MISSING = ("", "na", "nan", "none", "null", "n/a", "<na>", "#n/a", "nat", "-", "--", "?")
# Columns of ids, where none is named.
ID_NAMES = ("material_id", "jid", "entry_id", "mp_id", "mpid", "id")
_STRUCTURE_NAMES = ("structure", "atoms")


def number(value: Any) -> float | None:
    """Returns a cell's number as it is written, NaN if it is missing, None if it is no number."""
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
    return math.nan if value.strip().lower() in MISSING else written_number(value)


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
    known = [name for name in _STRUCTURE_NAMES if name in names]
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
        id_column: column of the ids, tried before the usual ones; "" for none.
    """
    for name in (id_column, *ID_NAMES) if id_column else ():
        value = cells.get(name)
        if isinstance(value, (str, int)) and str(value).strip().lower() not in MISSING:
            return str(value)
    return ""


def labels_of(cells: Iterable[tuple[str, Any]], structure: str) -> dict[str, Any]:
    """Returns the cells that may be labels: numbers, texts and lists of texts.

    Args:
        cells: of a row.
        structure: column that is left out.
    """
    found: dict[str, Any] = {}
    for name, value in cells:
        if name == structure or name in found:
            continue
        if name == "data" and isinstance(value, dict):  # of a ComputedStructureEntry
            found |= {
                key: one for key, one in labels_of(value.items(), "").items() if key not in found
            }
        elif value is None or isinstance(value, (str, int, float)) or _is_text_list(value):
            found[name] = value
    return found


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, (str, int)) for item in value[:100])
