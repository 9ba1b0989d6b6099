"""Tables for people: Markdown with aligned columns, which reads as plain text too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmat.runtime.files import shown

# A sequence holds the same quantity of several trials.
Cell = str | float | Sequence[float] | np.ndarray | None


def format_table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Returns a Markdown table whose columns are aligned, text left and numbers right.

    Args:
        rows: column name → cell. A text stands as it is, a number with four significant digits,
            a sequence of numbers as mean ± spread, None or a missing column as blank. Columns
            stand in the order in which they first appear.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_escaped(name) for name in columns]]
    lines += [[_format_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    right = [not any(isinstance(row.get(name), str) for row in rows) for name in columns]

    rule = ["-" * (width - 1) + ("-", ":")[at] for width, at in zip(widths, right, strict=True)]
    padded = [
        [
            cell.rjust(width) if at else cell.ljust(width)
            for cell, width, at in zip(line, widths, right, strict=True)
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def format_number(value: float, digits: int = 4) -> str:
    """Returns a number with so many significant digits; no digit before the point is cut off.

    What is shown as zero has no minus.
    """
    if not math.isfinite(value):
        return str(float(value))
    if isinstance(value, (int, np.integer)):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    return f"{value:z.{max(digits - 1 - _exponent(value, digits), 0)}f}"


def format_change(change: float, decimals: int = 0) -> str:
    """Returns a relative change as a signed number of percent; what is shown as zero has no sign.

    Args:
        change: relative, -0.2 for a fifth less.
        decimals: digits after the point.
    """
    text = f"{100 * change:+.{decimals}f}"
    return text if text.strip("+-0.") else text[1:]


def format_quantity(value: float, unit: str) -> str:
    """Returns a number with its unit, none for "1"."""
    return format_number(value) if unit == "1" else f"{format_number(value)} {unit}"


def with_unit(quantity: str, unit: str) -> str:
    """Returns the name of a quantity with its unit in brackets, none for "1"."""
    return quantity if unit == "1" else f"{quantity} ({unit})"


def format_spread(values: Sequence[float] | np.ndarray) -> str:
    """Returns mean ± sample standard deviation of trials, both to the second digit of the latter.

    Where there is no spread, as with a single trial, the mean stands alone.

    Args:
        values: one number a trial, [trials], at least one.
    """
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if spread == 0 or not math.isfinite(spread):
        return format_number(mean)
    decimals = 1 - _exponent(spread, digits=2)
    if decimals > 6:
        return f"{format_number(mean)} ± {format_number(spread, digits=2)}"
    return " ± ".join(f"{round(value, decimals):z.{max(decimals, 0)}f}" for value in (mean, spread))


def _exponent(value: float, digits: int) -> int:
    """Returns the power of ten of the first digit, after rounding to so many digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _format_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return _escaped(cell)
    if isinstance(cell, (int, float, np.number)):
        return format_number(cell)
    return format_spread(cell)


def _escaped(text: str) -> str:
    return shown(" ".join(text.split())).replace("|", "\\|")
