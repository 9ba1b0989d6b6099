"""Crystals that have names: in a data frame, a series or a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxmat.crystals.objects import is_crystal
from jaxmat.errors import UserError
from jaxmat.values import nearest


def is_frame(value: object) -> bool:
    """Whether a value is a data frame, of pandas or alike."""
    return hasattr(value, "columns")


def column_of(frame: Any, name: str) -> Any:
    """Returns a column of a data frame.

    Raises:
        UserError: there is none of this name.
    """
    columns = tuple(str(column) for column in frame.columns)
    if name not in columns:
        near = nearest(name, columns)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise UserError(
            f"The data frame has no column {name!r}{hint} Its columns: {', '.join(columns)}."
        )
    return frame[name]


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
        crystals = column_of(crystals, column)
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
