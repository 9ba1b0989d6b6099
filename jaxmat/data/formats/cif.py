"""CIF: syntax by gemmi, and what the file says of itself held against the atoms that it lists.

gemmi rather than pymatgen: it names the line of a mistake, knows all settings of the space groups,
and takes a twentieth of the time. What is read is the crystal that the file describes, or nothing:
atoms without coordinates, labels that are not elements, a formula that is not what was read, two
crystals in one file are refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import gemmi
import numpy as np
from pymatgen.core import Lattice

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.data.formats.formula import check_content
from jaxmat.data.formats.sites import Parsed, element_number, shortened
from jaxmat.data.formats.symmetry import Symmetry, expand, find_symmetry
from jaxmat.errors import UserError

_X = ("_atom_site_fract_x", "_atom_site.fract_x", "_atom_site_Cartn_x", "_atom_site.Cartn_x")
_MAX_IMAGES = 400_000  # operations times atoms
_MAX_BLOCKS = 1000  # that are looked at more closely
_SAME_PLACE = 0.1  # Å; closer atoms of one element are one


class Atom(NamedTuple):
    """A line of the list of atoms.

    Attributes:
        label: its name.
        symbol: of its element.
        position: fractional coordinates.
        occupancy: of its site.
    """

    label: str
    symbol: str
    position: np.ndarray
    occupancy: float


def parse_cif(text: str) -> Parsed:
    """Makes a crystal of a CIF.

    Raises:
        UserError: mistakes of syntax, no crystal or several, or contents that contradict each
            other.
    """
    block = _only_block(text)
    lengths, angles, lattice = _read_cell(block)
    atoms, remarks = _read_atoms(block, lattice)
    symmetries = find_symmetry(block, lengths, angles)
    fitting: list[Parsed] = []
    problems: list[UserError] = []
    for symmetry in symmetries:
        count = len(symmetry.rotation) * len(atoms)
        if count > _MAX_IMAGES:
            raise UserError(f"{too_many_sites(count)} (symmetry operations times atoms)")
        parsed = _place(atoms, symmetry, lattice)
        parsed.remarks += remarks
        try:
            check_content(block, parsed, told=symmetry.told and len(symmetries) == 1)
        except UserError as problem:
            problems.append(problem)
        else:
            fitting.append(parsed)
    if not fitting:
        raise problems[0]
    if len(fitting) > 1:
        fitting[0].remarks.append(
            "the name of the space group leaves the origin open: taken to be on a centre of "
            "inversion"
        )
    return fitting[0]


def _only_block(text: str) -> gemmi.cif.Block:
    try:
        document = gemmi.cif.read_string(text, check_level=0)
        if len(document) <= _MAX_BLOCKS:  # takes a time that grows with their square
            document.check_for_missing_values()
            document.check_for_duplicates()
    except (ValueError, RuntimeError) as reason:
        raise UserError(_tell_syntax(str(reason), text)) from reason
    blocks = [block for block in document if any(block.find_values(tag) for tag in _X)]
    if len(blocks) > 1:
        names = ", ".join(block.name for block in blocks[:3]) + ", ..." * (len(blocks) > 3)
        raise UserError(
            f"holds {len(blocks)} structures ({names}), of which a row of a table can have one: "
            "put each into a file of its own"
        )
    if blocks:
        return blocks[0]
    if not len(document):
        raise UserError("it has no data_ block: this is not a CIF")
    raise UserError("it lists no atoms with coordinates (_atom_site_fract_x)")


def _tell_syntax(reason: str, text: str) -> str:
    """Returns what gemmi says of a mistake: "string:LINE:COLUMN(BYTE): WHAT"."""
    match = re.match(r"string:(\d+)(?::\d+\(\d+\):| in \S+:)? *(.*)", reason, re.DOTALL)
    if not match:
        return f"CIF syntax: {reason.removeprefix('string: ')[:200]}"
    line, what = int(match[1]), match[2][:200]
    if what.startswith("_loop "):
        what += "; loop_ is meant?"
    if what.startswith("expected block header"):
        what = "expected data_NAME before everything else"
    if "parse error" in what:
        lines = text.splitlines()
        what = f"not understood: {shortened(lines[line - 1] if line <= len(lines) else '')}"
    return f"line {line}: {what}"


def _read_cell(block: gemmi.cif.Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns lengths in Å, angles in degrees and the lattice."""
    lengths, angles = (
        np.array([_cell_number(block, f"{kind}_{name}") for name in names])
        for kind, names in (("length", "abc"), ("angle", ("alpha", "beta", "gamma")))
    )
    if not (lengths > 0).all():
        raise UserError("lattice: a length of the cell is not above zero")
    cosines = np.cos(np.radians(angles))
    square = 1 - (cosines**2).sum() + 2 * cosines.prod()
    if not ((angles > 0) & (angles < 180)).all() or square <= 1e-9:
        raise UserError(f"lattice: no cell has the angles {', '.join(f'{a:g}' for a in angles)}")
    return lengths, angles, np.array(Lattice.from_parameters(*lengths, *angles).matrix)


def _cell_number(block: gemmi.cif.Block, name: str) -> float:
    for tag in (f"_cell_{name}", f"_cell.{name}"):
        if text := block.find_value(tag):
            value = gemmi.cif.as_number(text)
            if not math.isfinite(value):
                line = block.find_pair_item(tag).line_number
                raise UserError(f"line {line}: {tag} is {shortened(text)}, not a number")
            return float(value)
    raise UserError(f"it has no _cell_{name}")


def _read_atoms(block: gemmi.cif.Block, lattice: np.ndarray) -> tuple[list[Atom], list[str]]:
    """Returns the listed atoms and remarks on them.

    Raises:
        UserError: an atom without coordinates or element; all of them are named.
    """
    separator = "." if block.find_values("_atom_site.fract_x") else "_"
    fractional, inverse = True, np.eye(3)
    if not block.find_values(f"_atom_site{separator}fract_x"):
        separator = "." if block.find_values("_atom_site.Cartn_x") else "_"
        fractional, inverse = False, np.linalg.inv(lattice)
    kind = "fract" if fractional else "Cartn"
    names = [f"{kind}_x", f"{kind}_y", f"{kind}_z"]
    names += ["?label", "?type_symbol", "?occupancy", "?calc_flag"]
    table = block.find(
        [f"{'?' * n.startswith('?')}_atom_site{separator}{n.lstrip('?')}" for n in names]
    )
    if not len(table):
        raise UserError(f"its list of atoms lacks _atom_site_{kind}_y or _z")
    if len(table) > MAX_SITES:
        raise UserError(too_many_sites(len(table)))
    elements = _formula_elements(block)
    atoms: list[Atom] = []
    problems: list[str] = []
    left_out = 0
    for row in table:
        cells = [gemmi.cif.as_string(row[i]) if row.has(i) else "" for i in range(len(names))]
        given = [row.has(i) and not gemmi.cif.is_null(row[i]) for i in range(len(names))]
        raw, (label, symbol, _, flag) = [row[0], row[1], row[2]], cells[3:]
        label = label if given[3] else (symbol if given[4] else f"atom {len(atoms) + 1}")
        if given[6] and flag.lower() == "dum":
            left_out += 1
            continue
        try:
            if not all(given[:3]):
                raise UserError(f"{label} has no coordinates ({' '.join(raw[:3])})")
            position = np.array([_number(text, label, "coordinate") for text in raw[:3]])
            element = (
                _type_element(symbol, label, elements)
                if given[4]
                else _label_element(label, elements)
            )
            full = _number(row[5], label, "occupancy") if given[5] else 1.0
            if full < 0:
                raise UserError(f"{label} has the occupancy {full:g}")
        except UserError as problem:
            problems.append(str(problem))
            continue
        atoms.append(Atom(label, element, position @ inverse, full))
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        line = block.find_loop_item(table.tags[0])
        where = f" (list of atoms, line {line.line_number})" if line else ""
        raise UserError("; ".join(problems[:3]) + more + where + _missing(atoms, elements))
    if not atoms:
        raise UserError("size: it has no sites")
    return atoms, [f"{left_out} dummy atoms were left out"] if left_out else []


def _number(text: str, label: str, what: str) -> float:
    value = gemmi.cif.as_number(text)
    if not math.isfinite(value):
        raise UserError(f"{label} has the {what} {shortened(gemmi.cif.as_string(text))}")
    return float(value)


def _type_element(symbol: str, label: str, elements: set[str]) -> str:
    """Returns the element of a type symbol, whose charge and (remarks) do not matter."""
    plain = symbol.split("(")[0]
    if not _is_element(plain):
        raise UserError(f"element: {shortened(symbol)} ({label}) is not an element")
    if re.sub("[^A-Za-z]", "", plain).upper() == "T" and "T" not in elements:
        raise UserError(
            f"element: {shortened(symbol)} ({label}) may be tritium, which the formula has not, or "
            "the tetrahedral site of a zeolite: name the element that is there"
        )
    return plain


def _label_element(label: str, elements: set[str]) -> str:
    """Returns the element that a label begins with, where nothing else tells it.

    Raises:
        UserError: its letters are not an element, or two, and the formula does not tell which.
    """
    match = re.match("[A-Za-z]+", label)
    letters = match[0] if match else ""
    first, both = letters[:1].upper(), letters[:2].capitalize()
    if letters in ("T", "D") or not _is_element(letters.capitalize()):
        # T is tritium, and what zeolites call their tetrahedral sites.
        if letters in ("T", "D") and letters in elements | ({"D"} if "H" in elements else set()):
            return letters
        raise UserError(
            f"element: {label} is not an element, and there is no _atom_site_type_symbol to tell it"
        )
    if len(letters) == 1 or letters == both:
        return letters.capitalize()
    named = {symbol for symbol in (first, both) if symbol in elements}
    if named == {both}:
        return both
    raise UserError(
        f"element: {label} may be {both} or {first}, and there is no _atom_site_type_symbol to tell"
    )


def _is_element(symbol: str) -> bool:
    try:
        return bool(element_number(symbol))
    except UserError:
        return False


def _formula_elements(block: gemmi.cif.Block) -> set[str]:
    text = block.find_value("_chemical_formula_sum") or ""
    return {symbol.capitalize() for symbol in re.findall("[A-Z][a-z]?", text[:10_000])}


def _missing(atoms: Sequence[Atom], elements: set[str]) -> str:
    """Returns which elements of the formula no readable atom is of."""
    if lost := sorted(elements - {re.sub("[^A-Za-z]", "", a.symbol).capitalize() for a in atoms}):
        return f"; no atom is {' or '.join(lost)}, which the formula has"
    return ""


def _place(atoms: Sequence[Atom], symmetry: Symmetry, lattice: np.ndarray) -> Parsed:
    """Returns all atoms of the cell; listed atoms on one site share it, copies are merged."""
    places, owners = np.empty((0, 3)), np.empty(0, np.int64)  # of each site, its first atom
    members: list[list[int]] = []  # of each first atom, those on its sites
    copies: Counter[str] = Counter()
    for number, atom in enumerate(atoms):
        apart = places - atom.position
        apart -= np.round(apart)
        near = np.flatnonzero(np.linalg.norm(apart @ lattice, axis=1) < _SAME_PLACE)
        members.append([])
        if not near.size:
            own = expand(symmetry, atom.position, lattice)
            places = np.concatenate([places, own])
            owners = np.concatenate([owners, np.full(len(own), number)])
            members[number].append(number)
        else:
            first = int(owners[near[0]])
            if _is_copy(atoms, members[first], atom):
                copies[atoms[first].label] += 1
            else:
                members[first].append(number)
        if len(places) > MAX_SITES:
            raise UserError(too_many_sites(len(places)))
    rows = [(site, i) for site, owner in enumerate(owners.tolist()) for i in members[owner]]
    site, listed = np.array([s for s, _ in rows], np.int64), [i for _, i in rows]
    remarks = list(symmetry.remarks)
    if copies:
        names = ", ".join(list(copies)[:3]) + ", ..." * (len(copies) > 3)
        remarks.append(f"{copies.total()} listed atoms are copies of others ({names}): merged")
    return Parsed(
        lattice,
        [atoms[i].symbol for i in listed],
        places[site],
        np.array([atoms[i].occupancy for i in listed]),
        site,
        [atoms[i].label for i in listed],
        remarks=remarks,
    )


def _is_copy(atoms: Sequence[Atom], there: Sequence[int], atom: Atom) -> bool:
    """Whether a site is full of the element of another atom that is put there."""
    same = [atoms[i] for i in there]
    numbers = {element_number(one.symbol) for one in same}
    return (
        numbers == {element_number(atom.symbol)}
        and sum(one.occupancy for one in same) + atom.occupancy > 1.5
    )
