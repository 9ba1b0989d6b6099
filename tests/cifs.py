"""Parts of CIFs that tests write."""

from __future__ import annotations


def cell_lines(a: float = 4, b: float = 4, c: float = 4) -> str:
    """Returns the lines of a cell with right angles, Å."""
    lengths = zip("abc", (a, b, c), strict=True)
    angles = ("alpha", "beta", "gamma")
    return "\n".join(
        [
            *(f"_cell_length_{name} {length}" for name, length in lengths),
            *(f"_cell_angle_{name} 90" for name in angles),
        ]
    )
