"""Crystals that have names: in a data frame, a series or a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxmat.crystals.objects import is_crystal
from jaxmat.data.tables import Table
from jaxmat.errors import UserError
from jaxmat.values import nearest


def is_frame(value: object) -> bool:
    """Whether a value is a data frame, of pandas or alike."""
    return hasattr(value, "columns")


def column_of(frame: Any, name: str, argument: str = "") -> Any:
    """Returns a column of a data frame.

    Args:
        frame: the data frame; the names of its columns may be numbers.
        name: of the column, as text or as it is.
        argument: that names the column, for the message; "" for none.

    Raises:
        UserError: there is none of this name, or there are several; or it is a table of jaxmat.
    """
    if isinstance(frame, Table):
        raise UserError(
            "This is a table of jaxmat, no data frame: give table.structures, and as labels "
            "table.columns[NAME]."
        )
    columns = tuple(str(column) for column in frame.columns)
    if (number := columns.count(str(name))) > 1:
        raise UserError(f"The data frame has {number} columns {name!r}; give them different names.")
    if not number:
        near = nearest(str(name), columns)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        how = f" Name the right one with {argument}=NAME." if argument else ""
        raise UserError(
            f"The data frame has no column {name!r}{hint} Its columns: {', '.join(columns)}.{how}"
        )
    return frame[frame.columns[columns.index(str(name))]]


def named_crystals(crystals: Any, column: str) -> tuple[list[str] | None, Any]:
    """Returns the names of crystals, and the crystals.

    Args:
        crystals: as `jaxmat.data.reading.read` takes them; or a data frame or series, whose index
            names them; or a dict by name.
        column: of a data frame.

    Returns:
        The names, None where there are none or not all different; and the crystals.

    Raises:
        UserError: a data frame has no such column, or what has names is not all crystals.
    """
    if is_crystal(crystals):
        return None, crystals
    names = getattr(crystals, "index", None)
    if is_frame(crystals):
        crystals = column_of(crystals, column, "structure_column")
    elif isinstance(crystals, Mapping):
        names, crystals = list(crystals), list(crystals.values())
    if names is None or callable(names):  # as that of a list
        return None, crystals
    names, values = list(names), list(crystals)
    if wrong := [name for name, value in zip(names, values, strict=True) if not is_crystal(value)]:
        raise UserError(
            f"{len(wrong)} of {len(values)} rows hold no crystal, the first of them {wrong[0]!r}: "
            "expected structures of pymatgen or atoms of ASE."
        )
    names = [str(name) for name in names]
    return (names if len(set(names)) == len(names) else None), values
