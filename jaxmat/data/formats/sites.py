"""What a file says of a crystal becomes one atom a site, or a reason why it cannot.

Harmless things are taken: occupancies within a tolerance of one, ions of one element on one site,
the isotopes of hydrogen. What is not harmless is refused, naming everything that is on the site.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from pymatgen.core import Element

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.crystals.content import Content
from jaxmat.crystals.occupancy import OCCUPANCY_TOLERANCE
from jaxmat.errors import UserError
from jaxmat.values import written_number

# A symbol and what may follow it: a charge such as 2+, +2 or 0+, or a number.
_SYMBOL = re.compile(r"([A-Za-z]{1,3})(?:\d*\.?\d*[+-]?|[+-]\d*\.?\d*)")


@dataclass
class Parsed:
    """A crystal as a file tells it.

    Attributes:
        lattice: vectors in rows, Å, [3, 3].
        symbols: of the element of each atom, maybe with its charge.
        fractional: coordinates of each atom, [atoms, 3].
        occupancies: of each atom; None: all are one.
        site: number of the site of each atom; None: each has its own.
        labels: how messages name the atoms; None: by the number of the site and the symbol.
        periodic: along which vectors the crystal goes on.
        remarks: what the reader of the file has noticed.
    """

    lattice: np.ndarray
    symbols: Sequence[str]
    fractional: np.ndarray
    occupancies: np.ndarray | None = None
    site: np.ndarray | None = None
    labels: Sequence[str] | None = None
    periodic: tuple[bool, bool, bool] = (True, True, True)
    remarks: list[str] = field(default_factory=list)


def element_number(symbol: str) -> int:
    """Returns the atomic number of an element's or ion's symbol, such as Fe, FE, Fe3+ or D.

    Raises:
        UserError: it is not an element's.
    """
    number = _numbers().get(symbol)
    if number is not None:
        return number
    match = _SYMBOL.fullmatch(symbol.strip())
    number = _numbers().get(match[1].capitalize()) if match else None
    if number is None:
        raise UserError(f"element: {shortened(symbol)} is not an element")
    return number


@cache
def _numbers() -> dict[str, int]:
    return {element.symbol: element.Z for element in Element} | {"D": 1, "T": 1}


def file_number(word: str) -> float | None:
    """Returns the number that a word of a file is, Fortran's 1.0D0 included, None for none."""
    return written_number(re.sub("[dD]", "e", word))


def shortened(text: object, most: int = 40) -> str:
    """Returns a text from a file, fit to be shown in a message."""
    line = " ".join(str(text)[: 4 * most].split())
    return repr(line if len(line) <= most else line[: most - 3] + "...")


def one_atom_a_site(parsed: Parsed) -> tuple[Content, list[str]]:
    """Returns the crystal, and the remarks on it.

    Raises:
        UserError: too many atoms, no element, a site that several elements share or that is not
            full, or numbers of the wrong shape. The text begins with the kind of problem, as those
            of `find_problem` do.
    """
    if len(parsed.symbols) > MAX_SITES:
        raise UserError(too_many_sites(len(parsed.symbols)))
    if not any(parsed.periodic):
        raise UserError("lattice: it is periodic in no direction: only crystals can be used")
    numbers = [element_number(symbol) for symbol in parsed.symbols]
    fractional = np.asarray(parsed.fractional, np.float64).reshape(-1, 3)
    lattice = np.asarray(parsed.lattice, np.float64)
    if lattice.shape != (3, 3) or len(fractional) != len(numbers):
        raise UserError("lattice: expected three vectors, and three coordinates for each atom")
    remarks = list(parsed.remarks)
    if parsed.occupancies is not None or parsed.site is not None:
        kept = _full_sites(parsed, numbers, remarks)
        numbers, fractional = [numbers[i] for i in kept], fractional[kept]
    periodic = np.array(parsed.periodic, bool)
    if not periodic.all():
        names = ", ".join(axis for axis, on in zip("abc", parsed.periodic, strict=True) if not on)
        remarks.append(f"not periodic along {names}")
    return Content(np.array(numbers, np.uint8), fractional, lattice, periodic), remarks


def _full_sites(parsed: Parsed, numbers: Sequence[int], remarks: list[str]) -> list[int]:
    """Returns an atom of each site, the first; adds remarks."""
    count = len(numbers)
    occupancies = np.ones(count) if parsed.occupancies is None else parsed.occupancies
    site = range(count) if parsed.site is None else parsed.site.tolist()
    atoms: dict[int, list[int]] = {}
    for atom, place in enumerate(site):
        atoms.setdefault(place, []).append(atom)
    kept: list[int] = []
    rounded: dict[str, None] = {}  # a set in order: atoms of a label recur
    for place, members in atoms.items():
        if wrong := [i for i in members if not 0 <= occupancies[i] < np.inf]:
            raise UserError(
                f"disorder: the occupancy of {_name(parsed, place, wrong[0])} is "
                f"{occupancies[wrong[0]]:g}"
            )
        there = [i for i in members if occupancies[i] > 0]
        if not there:
            remarks.append(f"{_name(parsed, place, members[0])} has the occupancy 0: left out")
            continue
        total = float(occupancies[there].sum())
        if len({numbers[i] for i in there}) > 1:
            raise UserError(_shared(parsed, place, there, occupancies))
        if abs(total - 1) > OCCUPANCY_TOLERANCE + 1e-9:
            raise UserError(
                f"disorder: {_name(parsed, place, there[0])} has the occupancy {total:g}; taken as "
                f"full is what lies within {OCCUPANCY_TOLERANCE:g} of 1. Make an ordered crystal "
                "of it first"
            )
        if abs(total - 1) > 1e-6:
            rounded[f"{_name(parsed, place, there[0])} {total:g}"] = None
        kept.append(there[0])
    if rounded:
        more = f" and {len(rounded) - 3} more" if len(rounded) > 3 else ""
        remarks.append(f"occupancies taken as 1: {', '.join(list(rounded)[:3])}{more}")
    return kept


def _shared(parsed: Parsed, place: int, atoms: Sequence[int], occupancies: np.ndarray) -> str:
    held = ", ".join(f"{_name(parsed, place, i)} {occupancies[i]:g}" for i in atoms[:6])
    if (occupancies[list(atoms)] > 1 - OCCUPANCY_TOLERANCE).sum() > 1:
        return f"disorder: several elements, each with the occupancy 1, are on one site ({held})"
    return (
        f"disorder: a site is shared ({held}): make an ordered crystal of it first (pymatgen: "
        "OrderDisorderedStructureTransformation)"
    )


def _name(parsed: Parsed, place: int, atom: int) -> str:
    symbol = parsed.symbols[atom]
    return parsed.labels[atom] if parsed.labels is not None else f"{symbol} on site {place}"
