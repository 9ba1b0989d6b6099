"""Extended XYZ, frame by frame: the comment line has Lattice="..." and names the columns.

Format: https://github.com/libAtoms/extxyz#extended-xyz-specification-and-parsing-tools
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Element, Lattice, Structure

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.errors import UserError

_COUNT = re.compile(r"\s*\d{1,9}\s*")
_FIELD = re.compile(r'([\w-]+)=(?:"([^"]*)"|(\S+))')
_DEFAULT_COLUMNS = "species:S:1:pos:R:3"
_TRUE = {"T", "TRUE", "1"}


def split_frames(text: str) -> list[list[str]]:
    """Returns the lines of each frame; what follows a line that is no count is one frame.

    Args:
        text: of the file. Blank lines between frames are allowed.
    """
    lines = text.rstrip().splitlines()
    frames, start = [], 0
    while start < len(lines):
        count = _COUNT.fullmatch(lines[start])
        end = start + 2 + int(count[0]) if count else len(lines)
        if lines[start].strip():
            frames.append(lines[start:end])
        else:
            end = start + 1
        start = end
    return frames or [[""]]


def parse_frame(lines: Sequence[str]) -> Structure:
    """Makes a structure of one frame.

    Args:
        lines: as from `split_frames`.

    Raises:
        UserError: the frame is not complete, not periodic in all directions, or has lines that
            cannot be read.
    """
    if not _COUNT.fullmatch(lines[0]):
        raise UserError(f"expected a number of atoms, found {lines[0][:40]!r}")
    count = int(lines[0])
    if count > MAX_SITES:
        raise UserError(too_many_sites(count))
    if len(lines) != count + 2:
        raise UserError(f"the frame ends after {max(len(lines) - 2, 0)} of {count} atoms")
    fields = {key.lower(): quoted or bare for key, quoted, bare in _FIELD.findall(lines[1])}
    lattice = _read_lattice(fields)
    species, first, width = _find_columns(fields.get("properties", _DEFAULT_COLUMNS))
    symbols, positions = [], []
    for number, line in enumerate(lines[2:]):
        cells = line.split()
        try:
            if len(cells) != width:
                raise ValueError(f"{len(cells)} columns, expected {width}")
            symbols.append(Element(cells[species]))
            positions.append([float(cell) for cell in cells[first : first + 3]])
        except ValueError as reason:
            raise UserError(f"atom {number}: {reason}") from reason
    return Structure(lattice, symbols, positions, coords_are_cartesian=True)


def _read_lattice(fields: dict[str, str]) -> Lattice:
    if "lattice" not in fields:
        raise UserError('the comment line has no Lattice="...": only crystals can be used')
    directions = fields.get("pbc", "T T T").split()
    if len(directions) != 3 or not {flag.upper() for flag in directions} <= _TRUE:
        raise UserError(
            f'pbc="{fields["pbc"]}": crystals are periodic in all three directions; write '
            'pbc="T T T" if the vacuum in the cell is wide enough'
        )
    try:
        matrix = np.array([float(cell) for cell in fields["lattice"].split()]).reshape(3, 3)
    except ValueError as reason:
        raise UserError(f'Lattice="{fields["lattice"]}" is not nine numbers') from reason
    return Lattice(matrix)


def _find_columns(properties: str) -> tuple[int, int, int]:
    """Returns the column of the species, the first of the positions, and their number."""
    names, kinds, counts = (properties.split(":")[i::3] for i in range(3))
    columns: dict[tuple[str, str, str], int] = {}
    width = 0
    for name, kind, number in zip(names, kinds, counts, strict=False):
        columns[name.lower(), kind, number] = width
        width += int(number) if number.isdecimal() else 0
    try:
        return columns["species", "S", "1"], columns["pos", "R", "3"], width
    except KeyError as missing:
        raise UserError(
            f"Properties={properties} lacks {':'.join(missing.args[0])}; expected at least "
            f"{_DEFAULT_COLUMNS}"
        ) from missing
