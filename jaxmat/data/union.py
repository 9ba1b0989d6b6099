"""One table of several properties from tables of one each; a structure of several is one row.

Rows with the same material id and the same composition are one structure. So are rows of the same
composition, space group and lattice that pymatgen's matcher maps onto each other. This goes on from
row to row: if A is B and B is C, all three are one, whether or not A is C by itself. Hence which
rows come together does not depend on their order; which of several labels is kept does.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

from jaxmat.data.contents import Contents
from jaxmat.data.layouts.cells import is_missing
from jaxmat.data.tables import Table
from jaxmat.errors import UserError, listed
from jaxmat.runtime.files import whole_file

SOURCES = "sources"
_MATERIAL_ID = "material_id"
# Relative: labels that differ by less are one number, written twice.
_LABEL_TOLERANCE = 1e-6
# How far apart relaxations of one crystal with different functionals are. Of 800 such pairs in five
# tables of 12,000 rows 95 % are closer than 2 % in length and 0.02 in place. Pairs of one table
# whose atoms are 0.03 to 0.05 apart have labels that differ by up to a factor of two.
_VOLUME_TOLERANCE = 0.05  # relative, of the volume per atom
_LENGTH_TOLERANCE = 0.03  # relative, of the edges of the primitive cell
_ANGLE_TOLERANCE = 2.0  # degrees
_SITE_TOLERANCE = 0.03  # of an atom's place, times (volume per atom)^(1/3)
# Å, that atoms may be off symmetric places; the Materials Project takes the same.
_SYMMETRY_TOLERANCE = 0.1


class Labelling(NamedTuple):
    """The rows of a table that have a label of one property.

    Attributes:
        table: the rows; where there is a column material_id with text, rows are matched by it.
        labels: in the property's unit, [rows].
    """

    table: Table
    labels: np.ndarray


class Conflict(NamedTuple):
    """Two labels of one property for one structure.

    Attributes:
        property: key of the table that both come from.
        id: of the row in the union.
        kept: the row whose label the union has, such as "dc:17".
        other: the other row.
        kept_label: in the property's unit.
        other_label: in the property's unit.
    """

    property: str
    id: str
    kept: str
    other: str
    kept_label: float
    other_label: float


class Union(NamedTuple):
    """A table of several properties.

    Attributes:
        table: one row a structure. Its columns are the labels of each property, by its key, in
            its unit, NaN where missing, and "sources": the rows that ended there as KEY:ID with
            commas between them, such as "dc:17,gv:202".
        conflicts: labels that were not kept because there was another.
        mixed_ids: material ids of several compositions, which were not followed, with the rows.
    """

    table: Table
    conflicts: list[Conflict]
    mixed_ids: list[str]


class _Row(NamedTuple):
    property: str
    source: str
    material_id: str  # "" for none
    composition: str
    structure: Structure
    label: float


class _Cell(NamedTuple):
    """The primitive cell of a structure, and its space group, None where that is not known."""

    structure: Structure
    space_group: int | None


def unite(tables: Mapping[str, Labelling]) -> Union:
    """Makes one table of several.

    The structure of a row, and its label where a property has several, are those of its first
    source, in the order of the tables and of their rows. Its id is its material id where no other
    row has it, else the name of its first source, such as "dc:17".

    Args:
        tables: one property each, by its key.

    Raises:
        UserError: keys that cannot name a column, or ids that the column "sources" cannot hold.
    """
    _check_names(tables)
    rows = list(_list_rows(tables))
    groups = _same_structures(rows)
    ids = _choose_ids(rows, groups)
    columns = {key: np.full(len(groups), np.nan) for key in tables}
    conflicts = []
    for place, group in enumerate(groups):
        kept: dict[str, _Row] = {}
        for row in (rows[number] for number in group):
            first = kept.setdefault(row.property, row)
            columns[row.property][place] = first.label
            if not math.isclose(first.label, row.label, rel_tol=_LABEL_TOLERANCE):
                pair = first.source, row.source, first.label, row.label
                conflicts.append(Conflict(row.property, ids[place], *pair))
    sources = [",".join(rows[number].source for number in group) for group in groups]
    table = Table(
        name="union",
        ids=ids,
        contents=Contents.of(rows[group[0]].structure for group in groups),
        columns={**columns, SOURCES: np.array(sources, dtype=object)},
    )
    return Union(table, conflicts, _find_mixed_ids(rows))


def write_union(path: str | os.PathLike[str], union: Union) -> None:
    """Writes the table for `jaxmat.data.tables.read_table`; equal unions give equal bytes.

    Numbers are exact; of a structure lattice, elements and fractional coordinates are written. The
    file is whole or not there.

    Args:
        path: *.json.gz.
        union: what to write.
    """
    table, file = union.table, Path(path)
    rows = zip(map(_compact_dict, table.structures), *table.columns.values(), strict=True)
    content = {
        "columns": ["structure", *table.columns],
        "index": table.ids,
        "data": [[None if cell != cell else cell for cell in row] for row in rows],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    # Neither name nor time in it, which would make equal tables different files.
    with (
        whole_file(file) as unfinished,
        unfinished.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
    ):
        stream.write(text.encode())


def is_union(beginning: bytes) -> bool:
    """Whether a file that begins so is one that `write_union` wrote."""
    try:
        text = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(beginning, 2**16)
    except zlib.error:
        return False
    return text.startswith(b'{"columns":["structure",') and b'"sources"],"index":' in text


def _check_names(tables: Mapping[str, Labelling]) -> None:
    problems = [
        f"table {key!r}: a property's name starts with a letter, has neither comma nor colon, and "
        f"is none of structure, {_MATERIAL_ID} and {SOURCES}"
        for key in tables
        if not re.fullmatch(r"[^\W\d][^,:]*", key) or key in ("structure", _MATERIAL_ID, SOURCES)
    ]
    problems += [
        f"table {key}: id {id!r} has a comma"
        for key, (table, _) in tables.items()
        for id in table.ids
        if "," in id
    ]
    if problems:
        raise UserError(f"names that a union cannot hold; rename them:\n{listed(problems)}")


def _list_rows(tables: Mapping[str, Labelling]) -> Iterator[_Row]:
    for key, (table, labels) in tables.items():
        named = zip(table.ids, _material_ids(table), table.structures, labels, strict=True)
        for id, material_id, structure, label in named:
            formula = _reduced_formula(structure)
            yield _Row(key, f"{key}:{id}", material_id, formula, structure, float(label))


def _reduced_formula(structure: Structure) -> str:
    with warnings.catch_warnings():
        # Of noble gases, by which pymatgen would sort the elements.
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        return structure.composition.element_composition.reduced_formula


def _material_ids(table: Table) -> list[str]:
    """Returns the material id of each row, "" where it has none."""
    values = table.columns.get(_MATERIAL_ID)
    if values is None or values.dtype == np.float64:  # mere numbers may count the rows of a file
        return [""] * len(table.ids)
    names = [str(value).strip() for value in values]
    return ["" if is_missing(name) else name for name in names]


def _find_mixed_ids(rows: Sequence[_Row]) -> list[str]:
    """Returns the material ids that stand for several compositions, with a row of each."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.material_id:
            found[row.material_id].setdefault(row.composition, row.source)
    return [
        f"{id}: {', '.join(f'{formula} ({source})' for formula, source in one.items())}"
        for id, one in found.items()
        if len(one) > 1
    ]


def _choose_ids(rows: Sequence[_Row], groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Returns an id for each group of rows, all different."""
    firsts = [rows[group[0]].source for group in groups]
    wanted = [
        next((rows[n].material_id for n in group if rows[n].material_id), first)
        for first, group in zip(firsts, groups, strict=True)
    ]
    times = Counter([*wanted, *(row.source for row in rows)])
    return tuple(
        name if times[name] == 1 else first for name, first in zip(wanted, firsts, strict=True)
    )


def _same_structures(rows: Sequence[_Row]) -> list[list[int]]:
    """Returns the numbers of the rows that are one structure, in order, for each structure."""
    parents = list(range(len(rows)))  # each row's tree ends at the first row of its structure
    alike: dict[str, list[int]] = defaultdict(list)
    named: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        alike[row.composition].append(number)
        if row.material_id:
            _join(parents, named.setdefault((row.material_id, row.composition), number), number)
    for numbers in alike.values():
        _join_matching(rows, numbers, parents)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(rows)):
        groups[_root(parents, number)].append(number)
    return list(groups.values())


def _join_matching(rows: Sequence[_Row], numbers: Sequence[int], parents: list[int]) -> None:
    """Joins those of some rows of one composition that the matcher maps onto each other."""

    @cache
    def cell(number: int) -> _Cell:
        return _primitive_cell(rows[number].structure)

    volumes = np.array([rows[n].structure.volume / len(rows[n].structure) for n in numbers])
    for i, one in enumerate(numbers):
        others = volumes[i + 1 :]
        limits = _VOLUME_TOLERANCE * np.maximum(others, volumes[i])
        for j in np.flatnonzero(np.abs(others - volumes[i]) <= limits).tolist():
            other = numbers[i + 1 + j]
            if _root(parents, one) != _root(parents, other) and _match(cell(one), cell(other)):
                _join(parents, one, other)


def _primitive_cell(structure: Structure) -> _Cell:
    # Without oxidation states, spins and other properties that only some tables give.
    numbers = [site.specie.Z for site in structure]
    bare = Structure(structure.lattice, numbers, structure.frac_coords)
    primitive = bare.get_primitive_structure(_SYMMETRY_TOLERANCE)
    return _Cell(primitive.get_reduced_structure("LLL"), _space_group(bare))


def _space_group(structure: Structure) -> int | None:
    with warnings.catch_warnings():
        # A word to pymatgen about how it calls spglib.
        warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING to false")
        try:
            return SpacegroupAnalyzer(structure, _SYMMETRY_TOLERANCE).get_space_group_number()
        except SymmetryUndeterminedError:
            return None


def _match(one: _Cell, other: _Cell) -> bool:
    groups = one.space_group, other.space_group
    if len(one.structure) != len(other.structure) or (None not in groups and len(set(groups)) > 1):
        return False
    matcher = StructureMatcher(
        _LENGTH_TOLERANCE, _SITE_TOLERANCE, _ANGLE_TOLERANCE, primitive_cell=True, scale=False
    )
    # Both ways, since the tolerances are relative to the first; the cells are primitive already.
    return matcher.fit(
        one.structure, other.structure, symmetric=True, skip_structure_reduction=True
    )


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = number = parents[parents[number]]
    return number


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first


def _compact_dict(structure: Structure) -> dict[str, Any]:
    """Returns the smallest dict that pymatgen and `parse_dict` read."""
    sites = zip(structure, structure.frac_coords.tolist(), strict=True)
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "lattice": {"matrix": structure.lattice.matrix.tolist(), "pbc": structure.lattice.pbc},
        "sites": [
            {"species": [{"element": site.specie.symbol, "occu": 1}], "abc": place}
            for site, place in sites
        ],
    }
