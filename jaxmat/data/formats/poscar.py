"""POSCAR and CONTCAR of VASP.

Format: https://www.vasp.at/wiki/index.php/POSCAR. Read here rather than by pymatgen, which takes
Cartesian positions times the negative scale where that stands for a volume, knows one scale factor
only, and makes as many atoms as the counts promise before it looks for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.data.formats.sites import Parsed, element_number, file_number, shortened
from jaxmat.errors import UserError

_COUNT = re.compile(r"\d{1,18}", re.ASCII)


def parse_poscar(text: str) -> Parsed:
    """Makes a crystal of a POSCAR; velocities and what else follows are left out.

    Raises:
        UserError: a line that is not what belongs there, or elements that are not named.
    """
    lines = text.splitlines()
    lattice, scale = _read_lattice(lines)
    row = 5
    symbols = _words(lines, row)
    if symbols and not _COUNT.fullmatch(symbols[0]):
        symbols = [_plain(symbol) for symbol in symbols]
        row += 1
    else:
        symbols = []  # before VASP 5
    counts = _read_counts(lines, row)
    row += 1
    if _word(lines, row)[:1] in ("s", "S"):  # selective dynamics
        row += 1
    cartesian = _word(lines, row)[:1] in tuple("cCkK")
    if not cartesian and _word(lines, row)[:1] not in tuple("dD"):
        raise _wrong(lines, row, "Direct or Cartesian")
    row += 1
    total = sum(counts)
    if len(lines) < row + total:
        raise UserError(
            f"its counts promise {total} atoms, {max(len(lines) - row, 0)} lines follow"
        )
    cells = [line.split() for line in lines[row : row + total]]
    positions = np.array([_three(lines, row + i) for i in range(total)]).reshape(-1, 3)
    named = _find_symbols(symbols, counts, cells, lines[0])
    fractional = positions @ np.linalg.inv(lattice) * scale if cartesian else positions
    return Parsed(lattice, named, fractional)


def _read_lattice(lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lattice, scaled, and the factors of Cartesian x, y and z."""
    factors = _numbers(lines, 1, (1, 3), "one scale factor, or three")
    raw = np.array([_three(lines, row) for row in (2, 3, 4)])
    volume = abs(float(np.linalg.det(raw)))
    if not 0 < volume < np.inf:
        raise UserError("lattice: the vectors span no volume")
    if len(factors) == 1 and factors[0] < 0:  # the volume of the cell
        factors = [(-factors[0] / volume) ** (1 / 3)]
    if not all(0 < factor < np.inf for factor in factors):
        raise _wrong(lines, 1, "a scale factor above zero, or minus a volume")
    scale = np.array(factors * (3 // len(factors)))
    return raw * scale, scale


def _read_counts(lines: Sequence[str], row: int) -> list[int]:
    words = _words(lines, row)
    if not words or not all(_COUNT.fullmatch(word) for word in words):
        raise _wrong(lines, row, "the number of atoms of each element")
    counts = [int(word) for word in words]
    if sum(counts) > MAX_SITES:
        raise UserError(too_many_sites(sum(counts)))
    return counts


def _find_symbols(
    symbols: Sequence[str], counts: Sequence[int], cells: Sequence[Sequence[str]], comment: str
) -> list[str]:
    """Returns the symbol of each atom: from their line, from the ends of the atoms', or the first.

    Raises:
        UserError: they are not there, or contradict each other.
    """
    ends = [_element_at_end(words) for words in cells]
    if not symbols:
        if cells and all(ends):
            return [end for end in ends if end]
        symbols = [word for word in comment.split() if _is_element(word)]
        if len(symbols) != len(counts) or len(symbols) != len(comment.split()):
            raise UserError(
                "the POSCAR does not name its elements: add a line of symbols before the counts "
                "(VASP 5)"
            )
    if len(symbols) != len(counts):
        raise UserError(f"{len(symbols)} symbols and {len(counts)} counts of atoms")
    pairs = zip(symbols, counts, strict=True)
    named = [symbol for symbol, count in pairs for _ in range(count)]
    starts = [0, *accumulate(counts)][:-1]
    for start, symbol in zip(starts, symbols, strict=True):
        end = ends[start] if start < len(ends) else None
        if end and _is_element(symbol) and element_number(end) != element_number(symbol):
            raise UserError(
                f"atom {start + 1} is {symbol} by the line of symbols and {end} at the end of its "
                "own line"
            )
    return named


def _element_at_end(words: Sequence[str]) -> str | None:
    """Returns the symbol after the coordinates and, where there are any, their three flags."""
    flags = [word.strip(".").upper() in ("T", "F", "TRUE", "FALSE") for word in words[3:6]]
    rest = words[6:7] if flags == [True] * 3 else words[3:4]
    # F alone is fluorine; T alone is more likely half a flag than tritium.
    return rest[0] if rest and rest[0] != "T" and _is_element(rest[0]) else None


def _is_element(word: str) -> bool:
    try:
        return word[:1].isupper() and bool(element_number(word))
    except UserError:
        return False


def _plain(symbol: str) -> str:
    """Returns the element of a potential's name: Fe_pv, or Ti_sv/1a2b."""
    return re.split("[_/]", symbol)[0]


def _three(lines: Sequence[str], row: int) -> list[float]:
    return _numbers(lines, row, (3,), "three numbers")


def _numbers(lines: Sequence[str], row: int, wanted: Sequence[int], expected: str) -> list[float]:
    """Returns the numbers that a line begins with, as many of `wanted` as there are."""
    numbers: list[float] = []
    for word in _words(lines, row)[: max(wanted)]:
        number = file_number(word)
        if number is None:
            break
        numbers.append(number)
    for count in sorted(wanted, reverse=True):
        if len(numbers) >= count:
            return numbers[:count]
    raise _wrong(lines, row, expected)


def _words(lines: Sequence[str], row: int) -> list[str]:
    if row >= len(lines):
        return []
    return re.split("[#!]", lines[row][:100_000])[0].split()


def _word(lines: Sequence[str], row: int) -> str:
    return (_words(lines, row) or [""])[0]


def _wrong(lines: Sequence[str], row: int, expected: str) -> UserError:
    found = shortened(lines[row]) if row < len(lines) else "the end of the file"
    return UserError(f"line {row + 1}: expected {expected}, found {found}")
