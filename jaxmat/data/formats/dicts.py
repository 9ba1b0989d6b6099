"""Structures in JSON: pymatgen's dicts, JARVIS's atoms, entries of the Materials Project.

Nothing that a dict names is imported: only lattice, species and coordinates are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.data.formats.sites import Parsed, shortened
from jaxmat.errors import UserError


def is_structure(value: object) -> bool:
    """Whether a JSON value is meant as a structure."""
    return isinstance(value, dict) and (
        {"lattice", "sites"} <= value.keys()
        or {"lattice_mat", "elements"} <= value.keys()
        or value.get("@class") in ("Structure", "IStructure")
    )


def parse_dict(value: object) -> Parsed:
    """Makes a crystal of a JSON value.

    Args:
        value: {"lattice": {"matrix"}, "sites": [{"species", "abc"}, ...]} of pymatgen, or
            {"lattice_mat", "elements", "coords", "cartesian"} of jarvis-tools.

    Raises:
        UserError: it is neither, or something in it is not what belongs there.
    """
    if not is_structure(value):
        raise UserError(
            "not a structure: expected a pymatgen dict with '@class': 'Structure', or JARVIS atoms "
            f"with 'lattice_mat', 'coords' and 'elements'; found {_outline(value)}"
        )
    assert isinstance(value, dict)
    try:
        return _parse_jarvis(value) if "lattice_mat" in value else _parse_pymatgen(value)
    except UserError:
        raise
    except KeyError as missing:
        raise UserError(f"structure: {missing} is missing") from missing
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as reason:
        raise UserError("structure: a part is not of the form expected") from reason


def _parse_pymatgen(value: dict[str, Any]) -> Parsed:
    sites, lattice = value["sites"], value["lattice"]
    _check_count(sites)
    entries = [(number, one) for number, site in enumerate(sites) for one in site["species"]]
    fractional = _vectors([site["abc"] for site in sites])
    number = np.array([n for n, _ in entries], np.int64)
    occupancies = _vectors([[one["occu"]] for _, one in entries], 1)[:, 0]
    if empty := set(range(len(sites))) - set(number.tolist()):
        raise UserError(f"structure: site {min(empty)} has no species")
    plain = len(entries) == len(sites) and bool((occupancies == 1).all())
    return Parsed(
        _vectors(lattice["matrix"]),
        [_text(one["element"]) for _, one in entries],
        fractional if plain else fractional[number],
        None if plain else occupancies,
        None if plain else number,
        periodic=_periodic(lattice),
    )


def _parse_jarvis(value: dict[str, Any]) -> Parsed:
    _check_count(value["elements"])
    lattice, positions = _vectors(value["lattice_mat"]), _vectors(value["coords"])
    if not isinstance(cartesian := value.get("cartesian", False), (bool, int)):
        raise UserError(f"structure: 'cartesian' is {shortened(cartesian)}, not true or false")
    if cartesian:
        positions = positions @ _inverse(lattice)
    symbols = [_text(symbol) for symbol in value["elements"]]
    return Parsed(lattice, symbols, positions, periodic=_periodic(value))


def _periodic(value: dict[str, Any]) -> tuple[bool, bool, bool]:
    flags = value.get("pbc", [True, True, True])
    if not isinstance(flags, (list, tuple)) or len(flags) != 3:
        raise UserError(f"structure: 'pbc' is {shortened(flags)}, not three values")
    return bool(flags[0]), bool(flags[1]), bool(flags[2])


def _check_count(atoms: Any) -> None:
    if not isinstance(atoms, list):
        raise UserError(f"structure: expected a list of atoms, found {shortened(atoms)}")
    if len(atoms) > MAX_SITES:
        raise UserError(too_many_sites(len(atoms)))
    if not atoms:
        raise UserError("size: it has no sites")


def _vectors(rows: Any, width: int = 3) -> np.ndarray:
    # Numpy would also take texts for the numbers that Python reads in them.
    if all(type(x) in (int, float) for row in rows for x in row):
        values = np.array(rows, np.float64)
        if values.ndim == 2 and values.shape[1] == width:
            return values
    numbers = "three numbers" if width == 3 else "one number"
    raise UserError(f"structure: expected rows of {numbers}, found {shortened(rows)}")


def _inverse(lattice: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(lattice)
    except np.linalg.LinAlgError as reason:
        raise UserError("lattice: the vectors span no volume") from reason


def _text(symbol: Any) -> str:
    if not isinstance(symbol, str):
        raise UserError(f"element: {shortened(symbol)} is not an element")
    return symbol


def _outline(value: object) -> str:
    """Returns what a JSON value is, in a few words."""
    if isinstance(value, dict):
        keys = ", ".join(repr(key)[:20] for key in list(value)[:5])
        return f"a dict with {keys or 'nothing in it'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else shortened(value)
