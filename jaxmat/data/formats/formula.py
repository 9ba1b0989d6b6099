"""What a CIF says that its cell holds, against the atoms that were read."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import reduce
from math import gcd

import gemmi
from pymatgen.core import Element

from jaxmat.crystals.occupancy import OCCUPANCY_TOLERANCE
from jaxmat.data.formats.sites import Parsed, element_number
from jaxmat.errors import UserError

_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)", re.ASCII)
_UNITS_TOLERANCE = 0.04  # relative
_CHARGES = re.compile(r"\d*[+-]\d*$|\d+[+-]")


def check_content(block: gemmi.cif.Block, parsed: Parsed, told: bool) -> None:
    """Holds formula, number of formula units and weight against the atoms; adds remarks.

    Args:
        block: of the CIF.
        parsed: the atoms of the cell.
        told: whether the symmetry is beyond doubt. Where it is, a wrong number of formula units is
            remarked only.

    Raises:
        UserError: the atoms are not those of the formula, or fewer or more than it says.
    """
    read = _count(parsed)
    units = _number(block, "_cell_formula_units_Z")
    formula = parse_formula(block.find_value("_chemical_formula_sum") or "")
    if formula is None:
        _check_weight(block, parsed, read, units, told)
        return
    if not _proportional(formula, read):
        lost = sorted(formula.keys() - read.keys())
        tail = f": {', '.join(lost)} is missing" if lost else ""
        raise UserError(
            f"formula: the file says {_text(formula)}, the atoms read are {_text(read)}{tail}"
        )
    # Some programs write what the cell holds for the formula, and Z for the formula reduced.
    found = {sum(read.values()) / sum(formula.values())}
    if found == {1.0} and all(float(count).is_integer() for count in formula.values()):
        found.add(float(reduce(gcd, map(int, formula.values()))))
    _compare_units(parsed, units, found, told)


def parse_formula(text: str) -> dict[str, float] | None:
    """Returns atoms of each element, D and T being H; None where a formula is not understood."""
    text = gemmi.cif.as_string(text).strip() if text else ""
    counts: dict[str, float] = {}
    for part in re.sub(r"[,;*]", " ", text).split():
        rest = _CHARGES.sub("", part) if part[0] in "+-0123456789" else part
        terms = list(_TERM.finditer(rest))
        if "".join(match[0] for match in terms) != rest:
            return None
        for symbol, number in (match.groups() for match in terms):
            try:
                name = Element.from_Z(element_number(symbol)).symbol
            except UserError:
                return None
            count = float(number) if number not in ("", ".") else 1.0
            counts[name] = counts.get(name, 0.0) + count
    return {name: count for name, count in counts.items() if count > 0} or None


def _count(parsed: Parsed) -> dict[str, float]:
    """Returns the atoms of each element in the cell, those of partly filled sites in parts."""
    counts: dict[str, float] = {}
    occupancies = [1.0] * len(parsed.symbols)
    if parsed.occupancies is not None:
        occupancies = parsed.occupancies.tolist()
    for symbol, occupancy in zip(parsed.symbols, occupancies, strict=True):
        near = abs(occupancy - 1) <= OCCUPANCY_TOLERANCE + 1e-9
        name = Element.from_Z(element_number(symbol)).symbol
        counts[name] = counts.get(name, 0.0) + (1.0 if near else occupancy)
    return counts


def _proportional(formula: dict[str, float], read: dict[str, float]) -> bool:
    """Whether both hold the same elements in the same proportions."""
    if formula.keys() != {name for name, count in read.items() if count > 0}:
        return False
    exact = all(float(count).is_integer() for count in (*formula.values(), *read.values()))
    ratios = [Fraction(read[name]) / Fraction(count) for name, count in formula.items()]
    if exact:
        return len(set(ratios)) == 1
    return float(max(ratios)) <= float(min(ratios)) * (1 + 2 * OCCUPANCY_TOLERANCE)


def _check_weight(
    block: gemmi.cif.Block, parsed: Parsed, read: dict[str, float], units: float | None, told: bool
) -> None:
    """Holds the weight of the formula, where there is no formula, against that of the cell."""
    weight = _number(block, "_chemical_formula_weight")
    if weight is None or units is None:
        return
    found = sum(float(Element(name).atomic_mass) * count for name, count in read.items()) / weight
    _compare_units(parsed, units, {found}, told)


def _compare_units(parsed: Parsed, units: float | None, found: set[float], told: bool) -> None:
    """Holds the number of formula units against what it may be by the atoms."""
    if units is None or any(abs(number - units) <= _UNITS_TOLERANCE * units for number in found):
        return
    text = f"the cell holds {max(found):.4g} formula units, _cell_formula_units_Z says {units:g}"
    if not told:
        doubt = f" ({'; '.join(parsed.remarks)})" if parsed.remarks else ""
        raise UserError(f"formula: {text}; its symmetry is in doubt{doubt}")
    parsed.remarks.append(text)


def _number(block: gemmi.cif.Block, tag: str) -> float | None:
    """Returns a positive number of a block, None where it is not given."""
    value = gemmi.cif.as_number(block.find_value(tag) or "?")
    return float(value) if 0 < value < 1e9 else None


def _text(counts: dict[str, float]) -> str:
    terms = [f"{name}{count:.4g}" for name, count in sorted(counts.items())]
    return " ".join(terms[:20]) + " ..." * (len(terms) > 20)
