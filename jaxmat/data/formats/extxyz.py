"""Extended XYZ, frame by frame: the comment line has Lattice="..." and names the columns.

Format: https://github.com/libAtoms/extxyz#extended-xyz-specification-and-parsing-tools. Read here,
since the parsers of ase and extxyz are extras, and in time that grows with the length of a line,
however many quotes and brackets it leaves open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.crystals.occupancy import OCCUPANCY_ARRAYS, fill_sites, site_species
from jaxmat.data.formats.sites import Parsed, element_number, file_number, shortened
from jaxmat.errors import UserError

_COUNT = re.compile(r"\s*\d{1,18}\s*", re.ASCII)
_SPACE = re.compile(r"\s*")
_CLOSING = {'"': '"', "'": "'", "[": "]", "{": "}"}
# What a bare key and a bare value go on with, and what matters where they are enclosed.
_BARE = {"=": re.compile(r"[^\s=]*"), "": re.compile(r"\S*")}
_MARKS = {o: re.compile(rf"\\.|[{re.escape(o + c)}]") for o, c in _CLOSING.items()}
_MAX_BLANK = 10_000  # lines between frames
_MAX_COMMENT = 2**18  # characters
_SPECIES, _POSITION, _KINDS = "species:S:1", "pos:R:3", "spacegroup_kinds:I:1"
_DEFAULT_COLUMNS = f"{_SPECIES}:{_POSITION}"
_OCCUPANCIES = tuple(f"{name}:{kind}:1" for name in OCCUPANCY_ARRAYS for kind in "RI")
_FLAGS = {"T": True, "TRUE": True, "1": True, "F": False, "FALSE": False, "0": False}


class Frame(NamedTuple):
    """The lines of a frame, the count among them; of one that is not complete, what there is.

    Attributes:
        lines: of the frame.
        sites: that its first line promises; -1 where that is not a number.
    """

    lines: list[str]
    sites: int


def read_frames(lines: Iterator[str]) -> Iterator[Frame]:
    """Yields the frames of a file; after a line that is not a count nothing more is guessed.

    Args:
        lines: of the file. Blank lines between frames are allowed.
    """
    blank = 0
    for line in lines:
        if not line.strip() and blank < _MAX_BLANK:
            blank += 1
            continue
        count = int(line) if _COUNT.fullmatch(line) else -1
        if not 0 <= count <= MAX_SITES:
            yield Frame([line], count)
            return
        rest = [text for _, text in zip(range(count + 1), lines, strict=False)]
        yield Frame([line, *rest], count)


def parse_frame(frame: Frame) -> Parsed:
    """Makes a crystal of a frame.

    Raises:
        UserError: the frame is not complete, has no cell, or has lines that cannot be read.
    """
    lines, count = frame
    if count < 0:
        raise UserError(f"expected a number of atoms, found {shortened(lines[0])}")
    if count > MAX_SITES:
        raise UserError(too_many_sites(count))
    if len(lines) != count + 2:
        raise UserError(f"the frame ends after {max(len(lines) - 2, 0)} of {count} atoms")
    named = {key.lower(): value for key, value in read_fields(lines[1]).items()}
    lattice = _read_lattice(named)
    periodic = _read_periodic(named.get("pbc", "T T T"))
    columns, width = _find_columns(named.get("properties", _DEFAULT_COLUMNS))
    atoms, positions = _read_atoms(lines[2:], columns, width)
    symbols = [cells[columns[_SPECIES]] for cells in atoms]
    fractional = np.array(positions).reshape(-1, 3) @ np.linalg.inv(lattice)
    sites = _read_sites(named.get("occupancy", ""), columns, atoms, symbols)
    if sites is None:
        return Parsed(lattice, symbols, fractional, periodic=periodic)
    entries = [(place, *entry) for place, site in enumerate(sites) for entry in site.items()]
    place = np.array([place for place, _, _ in entries], np.int64)
    return Parsed(
        lattice,
        [symbol for _, symbol, _ in entries],
        fractional[place],
        np.array([amount for _, _, amount in entries]),
        place,
        periodic=periodic,
    )


def read_fields(line: str) -> dict[str, str]:
    """Returns the fields of a comment line: KEY=VALUE, a bare KEY being T.

    Raises:
        UserError: a quote or bracket that is not closed, or a line that is too long.
    """
    if len(line) > _MAX_COMMENT:
        raise UserError(f"the comment line has {len(line)} characters, over {_MAX_COMMENT}")
    fields = {}
    place = _skip_space(line, 0)
    while place < len(line):
        key, place = _read_word(line, place, "=")
        place = _skip_space(line, place)
        fields[key] = "T"
        if line.startswith("=", place):
            fields[key], place = _read_word(line, _skip_space(line, place + 1), "")
        place = _skip_space(line, place)
    return fields


def _skip_space(line: str, place: int) -> int:
    match = _SPACE.match(line, place)
    return match.end() if match else place


def _read_word(line: str, place: int, stop: str) -> tuple[str, int]:
    """Returns a key or value without what encloses it, and where it ends.

    Args:
        line: the comment line.
        place: where it begins.
        stop: ends it if it is bare, as white space does.
    """
    opening = line[place : place + 1]
    if opening not in _CLOSING or not opening:
        match = _BARE[stop].match(line, place)
        end = match.end() if match else place
        return line[place:end], max(end, place + 1)
    end = _find_closing(line, place)
    return line[place + 1 : end], end + 1


def _find_closing(line: str, place: int) -> int:
    """Returns where the quote or bracket at a place is closed."""
    opening = line[place]
    closing = _CLOSING[opening]
    depth = 1
    for match in _MARKS[opening].finditer(line, place + 1):
        if match[0] == closing:
            depth -= 1
        elif match[0] == opening:
            depth += 1
        if not depth:
            return match.start()
    raise UserError(f"the comment line has a {opening} without its {closing} (column {place + 1})")


def _read_lattice(fields: dict[str, str]) -> np.ndarray:
    if "lattice" not in fields:
        raise UserError('the comment line has no Lattice="...": only crystals can be used')
    try:
        numbers = [_number(word) for word in _words(fields["lattice"])]
        lattice = np.array(numbers).reshape(3, 3)
    except (UserError, ValueError) as reason:
        raise UserError(f"Lattice={shortened(fields['lattice'])} is not nine numbers") from reason
    if not 0 < abs(float(np.linalg.det(lattice))) < np.inf:
        raise UserError("lattice: the vectors span no volume")
    return lattice


def _number(word: str) -> float:
    number = file_number(word)
    if number is None:
        raise UserError(f"{shortened(word)} is not a number")
    return number


def _read_periodic(value: str) -> tuple[bool, bool, bool]:
    flags = [_FLAGS.get(word.upper()) for word in _words(value)]
    if len(flags) != 3 or None in flags:
        raise UserError(f'pbc={shortened(value)} is not three of T and F; write pbc="T T T"')
    return bool(flags[0]), bool(flags[1]), bool(flags[2])


def _read_atoms(
    lines: Sequence[str], columns: dict[str, int], width: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Returns the cells and the position of each atom."""
    atoms, positions = [], []
    first = columns[_POSITION]
    for number, line in enumerate(lines):
        cells = line.split(maxsplit=width)
        if len(cells) != width:
            raise UserError(f"atom {number}: {len(line.split())} columns, expected {width}")
        try:
            element_number(cells[columns[_SPECIES]])
            positions.append([_number(cell) for cell in cells[first : first + 3]])
        except UserError as reason:
            where = str(reason).removeprefix("element: ")
            raise UserError(f"atom {number}: {where[:80]}") from reason
        atoms.append(cells)
    return atoms, positions


def _read_sites(
    told: str, columns: dict[str, int], atoms: Sequence[Sequence[str]], symbols: Sequence[str]
) -> list[dict[str, float]] | None:
    """Returns what is on the site of each atom, None where nothing is said of it."""
    names = [name for name in _OCCUPANCIES if name in columns]
    occupancy = _read_occupancy(told)
    if occupancy is None and not names:
        return None
    kinds = [cells[columns[_KINDS]] for cells in atoms] if _KINDS in columns else None
    sites = site_species(symbols, occupancy, kinds)
    for name in names:
        sites = fill_sites(sites, [_number(cells[columns[name]]) for cells in atoms])
    return sites


def _read_occupancy(value: str) -> object:
    """Returns what is on each kind of site, as ASE writes what it read of a CIF, or None.

    Raises:
        UserError: it is written so and cannot be read.
    """
    if not value.startswith("_JSON"):
        return None  # something else of this name
    try:
        return json.loads(re.sub(r"\\(.)", r"\1", value.removeprefix("_JSON")))
    except (ValueError, RecursionError) as reason:
        raise UserError(f"occupancy={shortened(value)} is not JSON") from reason


def _words(value: str) -> list[str]:
    return re.sub(r"[\[\]{},]", " ", value).split()


def _find_columns(properties: str) -> tuple[dict[str, int], int]:
    """Returns the columns, such as species:S:1, where they begin, and their number."""
    names, kinds, counts = (properties.split(":")[i::3] for i in range(3))
    columns: dict[str, int] = {}
    width = 0
    for name, kind, number in zip(names, kinds, counts, strict=False):
        columns[f"{name.lower()}:{kind}:{number}"] = width
        width += int(number) if re.fullmatch(r"[0-9]{1,4}", number) else 0
    for needed in (_SPECIES, _POSITION):
        if needed not in columns:
            raise UserError(
                f"Properties={shortened(properties)} lacks {needed}; expected at least "
                f"{_DEFAULT_COLUMNS}"
            )
    return columns, width
