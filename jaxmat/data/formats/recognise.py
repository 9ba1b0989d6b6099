"""Which format a text has, by what is in it; the text becomes one crystal."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable

from jaxmat.data.formats.cif import parse_cif
from jaxmat.data.formats.dicts import parse_dict
from jaxmat.data.formats.extxyz import parse_frame, read_frames
from jaxmat.data.formats.poscar import parse_poscar
from jaxmat.data.formats.sites import Parsed, shortened
from jaxmat.errors import UserError

FORMATS = "CIF, POSCAR, extended XYZ or a pymatgen or JARVIS structure in JSON"
_CIF = re.compile(r"(data_|loop_|_cell_length_a)", re.IGNORECASE)
_THREE = re.compile(r"\s*([+-]?[\d.]+([eEdD][+-]?\d+)?(\s+|$)){3}")
_ONE_OR_THREE = re.compile(r"\s*[+-]?[\d.]+([eEdD][+-]?\d+)?(\s+[\d.]+\s+[\d.]+)?\s*([!#].*)?")
_COUNT = re.compile(r"\s*\d{1,18}\s*", re.ASCII)
_HEAD = 20_000  # characters
# What the names of files say, where their contents do not.
_SUFFIXES = {".cif": "cif", ".mcif": "cif", ".vasp": "poscar", ".poscar": "poscar"}
_SUFFIXES |= {".json": "json", ".xyz": "extxyz", ".extxyz": "extxyz"}


def find_format(text: str, name: str = "") -> str:
    """Returns cif, poscar, extxyz or json, "" for none.

    Args:
        text: at least the beginning.
        name: of the file.
    """
    head = text[:_HEAD].lstrip("\ufeff")
    lines = head.splitlines()
    # First, for its first line is a comment, which may begin as the others do.
    if len(lines) > 4 and _ONE_OR_THREE.fullmatch(lines[1]) and all(map(_THREE.match, lines[2:5])):
        return "poscar"
    if head.lstrip()[:1] in ("{", "["):
        return "json"
    if _CIF.match(_first_line(head)):
        return "cif"
    if lines and _COUNT.fullmatch(lines[0]):
        return "extxyz"
    return format_of_name(name)


def _first_line(head: str) -> str:
    """Returns the first line that is neither blank nor a comment."""
    lines = (line.strip() for line in head.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def format_of_name(name: str) -> str:
    """Returns the format that the name of a file says, "" for none."""
    plain = unpacked_name(name.lower())
    for suffix, format in _SUFFIXES.items():
        if plain.endswith(suffix):
            return format
    return "poscar" if "poscar" in plain or "contcar" in plain else ""


def unpacked_name(name: str) -> str:
    """Returns the name of a file without what says that it is packed."""
    return re.sub(r"\.(gz|bz2|xz|zip)$", "", name, flags=re.IGNORECASE)


def looks_like_structure(text: str) -> bool:
    """Whether the cell of a table is the text of a structure file and no name."""
    return (
        "\n" in text.strip()
        and find_format(text) in ("cif", "poscar", "extxyz")
        or (text.lstrip().startswith("{") and ("lattice" in text))
    )


def parse_text(text: str, name: str = "") -> Parsed:
    """Makes a crystal of the text of a file that holds one.

    Args:
        text: the whole.
        name: of the file.

    Raises:
        UserError: no format that is known, or contents that cannot be used.
    """
    parsers: dict[str, Callable[[str], Parsed]] = {
        "cif": parse_cif,
        "poscar": parse_poscar,
        "extxyz": _parse_extxyz,
        "json": _parse_json,
    }
    format = find_format(text, name)
    if not text.strip():
        raise UserError("it is empty")
    if not format:
        raise UserError(
            f"unknown format: expected {FORMATS}; it begins with {shortened(text[:200])}"
        )
    return parsers[format](text)


def _parse_extxyz(text: str) -> Parsed:
    frames = list(read_frames(iter(text.splitlines())))
    if len(frames) > 1:
        raise UserError(f"holds {len(frames)} structures: put each into a file of its own")
    return parse_frame(frames[0])


def _parse_json(text: str) -> Parsed:
    try:
        value = json.loads(text.lstrip("\ufeff"))
    except RecursionError as reason:
        raise UserError("not JSON that can be read: too deep") from reason
    except ValueError as reason:
        if not text.lstrip().startswith("{'"):
            line = (
                f"line {reason.lineno}" if isinstance(reason, json.JSONDecodeError) else "a number"
            )
            raise UserError(f"not JSON: {line} is cut short, wrong or too long") from reason
        value = _python_dict(text)
    if isinstance(value, dict) and isinstance(value.get("structure"), dict):
        value = value["structure"]
    return parse_dict(value)


def _python_dict(text: str) -> object:
    """Returns the value of a dict as Python prints it, which is how pandas writes it to CSV."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as reason:
        raise UserError(
            "not JSON, nor a Python dict of plain numbers: write json.dumps(structure.as_dict())"
        ) from reason
