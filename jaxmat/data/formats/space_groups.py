"""What a CIF calls its space group, and which that may be; gemmi knows the groups.

A name that is not understood is never replaced by the standard setting of the group's number where
there are others: half of the atoms might be missing, or all of them be in wrong places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import gemmi
import numpy as np

from jaxmat.data.formats.sites import shortened
from jaxmat.errors import UserError

_HALL = "_space_group_name_Hall", "_space_group.name_Hall", "_symmetry_space_group_name_Hall"
_NAMES = (
    *("_space_group_name_H-M_alt", "_space_group.name_H-M_alt", "_space_group_name_H-M_full"),
    *("_symmetry_space_group_name_H-M", "_symmetry.space_group_name_H-M"),
)
_NUMBERS = ("_space_group_IT_number", "_space_group.IT_number", "_symmetry_Int_Tables_number")
_NOT_GIVEN = ("", "?", ".", "none", "unknown", "n/a")
_ROUNDING = 10_000
# Origin or axes behind a name: ":2", "O1" and "(origin 2)", and the S, Z, H and R of ICSD.
_ORIGIN = re.compile(r"[\s:(]*(?::|\bo(?:rigin)?(?:\s+choice)?)\s*([12])\s*\)?$", re.IGNORECASE)
_LETTER = re.compile(r"(?<=.)[\s:(]*([SZHR])\s*\)?$", re.IGNORECASE)
_ENDINGS = {"S": "1", "Z": "2"}


class Group(NamedTuple):
    """A space group in one setting.

    Attributes:
        number: of the group, 0 where it is not known.
        rotation: of its operations, in fractional coordinates, [operations, 3, 3].
        translation: of its operations, fractions of the cell, [operations, 3].
        keys: what tells its operations from others.
    """

    number: int
    rotation: np.ndarray
    translation: np.ndarray
    keys: frozenset[tuple[int, ...]]


class Named(NamedTuple):
    """What a file calls its space group.

    Attributes:
        name: that was understood, "" for none.
        groups: which it may be, the first origin last; none where there is no name.
        doubts: why it may be another one.
        number: that alone tells it, 0 where a name does.
    """

    name: str
    groups: list[Group]
    doubts: list[str]
    number: int = 0


def operation_keys(rotation: np.ndarray, translation: np.ndarray) -> list[tuple[int, ...]]:
    """Returns what tells operations apart, rounded."""
    rows = np.concatenate([rotation.reshape(-1, 9), translation.reshape(-1, 3) % 1], axis=1)
    rows = np.round(rows * _ROUNDING).astype(int)
    rows[:, 9:] %= _ROUNDING
    return [tuple(row) for row in rows.tolist()]


def find_group(block: gemmi.cif.Block, angles: np.ndarray) -> Named:
    """Returns what a file calls its group: by the Hall symbol, the name or the number.

    Raises:
        UserError: a name that is not known, and nothing that tells the setting.
    """
    halls, names, numbers = (_given(block, tags) for tags in (_HALL, _NAMES, _NUMBERS))
    alpha, gamma = float(angles[0]), float(angles[2])
    found = [(text, _by_hall(text)) for text in halls]
    found += [(text, _by_name(text, alpha, gamma)) for text in names]
    unknown = [text for text, groups in found if not groups]
    known = [(text, groups) for text, groups in found if groups]
    if not known:
        return _by_number(numbers, unknown, alpha, gamma)
    (name, groups), *others = known
    doubts = [
        f"the space group is called {name} and {other}"
        for other, also in others
        if not {one.keys for one in groups} & {one.keys for one in also}
    ]
    same = {one.number for one in groups}
    doubts += [
        f"the space group is called {name} and has the number {text}"
        for text in numbers
        if 0 not in same and not (text.isdecimal() and int(text) in same)
    ]
    if unknown and name not in halls:
        doubts.append(f"the space group {shortened(unknown[0])} is not known; {name} was used")
    return Named(name, groups, doubts)


def _by_number(numbers: list[str], unknown: list[str], alpha: float, gamma: float) -> Named:
    """Returns the group of a number, with a doubt where it has other settings.

    Args:
        numbers: that the file gives.
        unknown: names of the group that are not understood.
        alpha: of the cell, degrees.
        gamma: likewise.
    """
    for text in numbers:
        settings = _settings(int(text)) if text.isdecimal() and len(text) < 4 else []
        letters = {name.lstrip("-")[:1].upper() for name in unknown}
        # Of one name only the number is not in doubt: no other setting has its centring.
        fitting = [one for one in settings if not letters or letters == {one[:1]}]
        if len(fitting) == 1 or (fitting and not unknown):
            doubts = []
            if unknown:
                told = f"that of the number {text}, {fitting[0]}, was used"
                doubts = [f"the space group {shortened(unknown[0])} is not known; {told}"]
            elif len(settings) > 1:
                doubts = [
                    f"of the space group {text} the standard setting was taken, {settings[0]}"
                ]
            groups = _by_name(fitting[0], alpha, gamma)
            return Named(f"space group {text}", groups, doubts, int(text))
    if odd := unknown or numbers:
        raise UserError(
            f"the space group {shortened(odd[0])} is not known: write its symmetry operations "
            "(_space_group_symop_operation_xyz), or its Hall symbol"
        )
    return Named("", [], [])


@cache
def _settings(number: int) -> list[str]:
    """Returns the names of all settings of a group, the standard one first."""
    groups = [group for group in gemmi.spacegroup_table() if group.number == number]
    return list(dict.fromkeys(group.hm for group in groups))


def all_settings(number: int) -> list[Group]:
    """Returns a group in all settings that gemmi knows."""
    groups = [group for name in _settings(number) for group in _endings(name).values()]
    return [one for group in groups for one in _by_hall(group.hall)]


@lru_cache(maxsize=1000)
def _by_hall(symbol: str) -> list[Group]:
    try:
        operations = gemmi.symops_from_hall(symbol)
    except (RuntimeError, ValueError):
        return []
    rotation = np.array([np.array(one.rot) / one.DEN for one in operations])
    translation = np.array([np.array(one.tran) / one.DEN for one in operations])
    keys = frozenset(operation_keys(rotation, translation))
    group = gemmi.find_spacegroup_by_ops(operations)
    return [Group(group.number if group else 0, rotation, translation, keys)]


@lru_cache(maxsize=1000)
def _by_name(name: str, alpha: float, gamma: float) -> list[Group]:
    """Returns the groups that a name may mean: both origins where it does not tell which."""
    return [one for group in find_by_name(name, alpha, gamma) for one in _by_hall(group.hall)]


def find_by_name(name: str, alpha: float = 90, gamma: float = 90) -> list[gemmi.SpaceGroup]:
    """Returns the groups of a Hermann-Mauguin symbol, however it is written; none: not known.

    Args:
        name: such as "F m -3 m", "Fm3m", "P2(1)/c", "F d -3 m :2" or "R-3mH".
        alpha: of the cell, degrees; of R groups the angles tell the axes where the name does not.
        gamma: likewise.
    """
    plain, ending = _split(name)
    for spelling in _spellings(plain):
        group = gemmi.find_spacegroup_by_name(spelling, alpha, gamma)
        if not group:
            continue
        same = _endings(group.hm)
        if not ending:
            # The second origin first, on a centre of inversion.
            return [same["2"], same["1"]] if "2" in same else [group]
        if ending in same:
            return [same[ending]]
        # Some programs write an origin behind the names of all groups.
        return [group] if set(same) == {""} and ending in "12" else []
    return []


@cache
def _endings(name: str) -> dict[str, gemmi.SpaceGroup]:
    """Returns the groups of a name by what stands behind it: an origin, the axes, or "" alone."""
    groups = [group for group in gemmi.spacegroup_table() if group.hm == name]
    return {group.ext if group.ext in ("1", "2", "H", "R") else "": group for group in groups}


def _split(name: str) -> tuple[str, str]:
    """Returns a name, and the origin or the axes that are written behind it: 1, 2, H, R or ""."""
    text = name.strip(" '\"").replace("\N{MINUS SIGN}", "-")
    text = re.sub(r"(?<=\d)(\((\d)\)|_\{?(\d)\}?)", r"\2\3", text)  # P2(1)/c, P 6_3/m
    text = re.sub(r"\s*(\((no\.?\s*)?#?\d+\)|#\s*\d+)$", "", text, flags=re.IGNORECASE)
    text = re.sub(r"-\s+(?=\d)", "-", re.sub(r"\s*/\s*", "/", text.replace("_", " ")))
    if match := _ORIGIN.search(text):
        return text[: match.start()].rstrip(" :"), match[1]
    if match := _LETTER.search(text):
        ending = match[1].upper()
        return text[: match.start()].rstrip(" :"), _ENDINGS.get(ending, ending)
    return text.rstrip(" :"), ""


def _spellings(name: str) -> Iterator[str]:
    """Yields a symbol, and the short form of a full one: F 4/m -3 2/m is F m -3 m."""
    yield name
    cubic = re.search(r"-\s*3", name) is not None
    short = re.sub(r"4[1-3]?/([a-n])(?=\s*-\s*3)", r"\1", name, flags=re.IGNORECASE)
    short, count = re.subn(r"((?<!\d)|(?<=-3))21?/([a-n])", r"\2", short, flags=re.IGNORECASE)
    # One alone is that of a monoclinic group, and means something.
    if short != name and (count > 1 or cubic):
        yield short


def _given(block: gemmi.cif.Block, tags: tuple[str, ...]) -> list[str]:
    texts = (gemmi.cif.as_string(text).strip() for tag in tags for text in block.find_values(tag))
    return [text for text in dict.fromkeys(texts) if text.lower() not in _NOT_GIVEN]
