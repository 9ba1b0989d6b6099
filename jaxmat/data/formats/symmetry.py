"""The symmetry that a CIF tells, and the atoms that it makes of those listed.

Operations come from their list, or from the Hall symbol, the name or the number of the group, in
this order (`jaxmat.data.formats.space_groups`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import gemmi
import numpy as np
from pymatgen.core.operations import SymmOp

from jaxmat.data.formats.sites import shortened
from jaxmat.data.formats.space_groups import all_settings, find_group, operation_keys
from jaxmat.errors import UserError

_LISTS = (
    *("_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz"),
    *("_symmetry_equiv_pos_as_xyz", "_symmetry_equiv.pos_as_xyz"),
)
_MAGNETIC = "_space_group_symop_magn_operation.xyz", "_space_group_symop_magn_operation_xyz"
_CENTERING = "_space_group_symop_magn_centering.xyz", "_space_group_symop_magn_centering_xyz"
# Of a group with centerings there are at most 192; magnetic ones may be written in larger cells.
_MAX_OPERATIONS = 5000
_TRIPLET = re.compile(r"[-+xyz\d./\s]{1,40},[-+xyz\d./\s]{1,40},[-+xyz\d./\s]{1,40}", re.IGNORECASE)
# Of lengths and angles of the cell under the operations, relative.
_METRIC_TOLERANCE = 0.02
# Å; images of an atom that are closer are one, on a special position given with few digits.
_SAME_PLACE = 0.1


# Rotations and translations, of one operation or stacked.
Operation = tuple[np.ndarray, np.ndarray]


class Symmetry(NamedTuple):
    """The operations of a space group.

    Attributes:
        rotation: in fractional coordinates, [operations, 3, 3].
        translation: fractions of the cell, [operations, 3].
        told: whether the file tells the symmetry, and only once or the same every time.
        remarks: what is to be known about it.
    """

    rotation: np.ndarray
    translation: np.ndarray
    told: bool
    remarks: list[str]


def find_symmetry(
    block: gemmi.cif.Block, lengths: np.ndarray, angles: np.ndarray
) -> list[Symmetry]:
    """Returns what the symmetry may be, most often one; the origin of a name may not be told.

    Args:
        block: of the CIF.
        lengths: of the cell, Å, [3].
        angles: of the cell, degrees, [3].

    Raises:
        UserError: operations or a name that are not understood, or that the cell does not have.
    """
    listed = _listed_operations(block)
    remarks: list[str] = []
    if listed is not None:
        name = _other_name(block, angles, listed)
        if name:
            remarks.append(
                f"the {len(listed[0])} symmetry operations are not those of {name}; they were used"
            )
        found = [Symmetry(*listed, not name, remarks)]
    else:
        named = find_group(block, angles)
        remarks += named.doubts
        found = [
            Symmetry(one.rotation, one.translation, not remarks, remarks) for one in named.groups
        ]
    if not found:
        remarks.append("no symmetry is given: P1 was assumed")
        found = [Symmetry(np.eye(3)[None], np.zeros((1, 3)), False, remarks)]
    for symmetry in found:
        _check_cell(symmetry, lengths, angles)
    return found


def expand(symmetry: Symmetry, position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Returns all places of an atom in the cell, [places, 3], the given one first.

    An atom closer than 0.1 Å to an image of itself is moved onto the special position between them.

    Args:
        symmetry: of the crystal.
        position: fractional coordinates, [3].
        lattice: vectors in rows, Å.
    """
    images = symmetry.rotation @ position + symmetry.translation
    apart = images - position
    apart -= np.round(apart)
    same = np.linalg.norm(apart @ lattice, axis=1) < _SAME_PLACE
    if same.sum() > 1:
        position = position + apart[same].mean(axis=0)
        images = symmetry.rotation @ position + symmetry.translation
    images = images - np.floor(images)
    kept: list[np.ndarray] = []
    left = np.arange(len(images))
    while left.size:
        image = images[left[0]]
        kept.append(image)
        apart = images[left] - image
        apart -= np.round(apart)
        left = left[np.linalg.norm(apart @ lattice, axis=1) >= _SAME_PLACE]
    return np.array(kept)


def _listed_operations(block: gemmi.cif.Block) -> Operation | None:
    for tag in _LISTS:
        if texts := _values(block, tag):
            return _unique(_parse_operations(texts))
    for tag, centering in zip(_MAGNETIC, _CENTERING, strict=True):
        if texts := _values(block, tag):
            # What time reversal does to moments does not matter: strip ",+1" and ",-1".
            operations = _parse_operations([text.rsplit(",", 1)[0] for text in texts])
            shifts = [text.rsplit(",", 1)[0] for text in _values(block, centering)] or ["x,y,z"]
            centerings = _parse_operations(shifts)
            if len(operations) * len(centerings) > _MAX_OPERATIONS:
                raise UserError(_too_many(len(operations) * len(centerings)))
            return _unique([_product(c, o) for c in centerings for o in operations])
    return None


def _parse_operations(texts: list[str]) -> list[Operation]:
    if len(texts) > _MAX_OPERATIONS:
        raise UserError(_too_many(len(texts)))
    return [_parse_operation(text) for text in texts]


@lru_cache(maxsize=2000)
def _parse_operation(text: str) -> Operation:
    """Returns the operation that a text such as "-x, y+1/2, z" names."""
    if not _TRIPLET.fullmatch(text):
        raise UserError(f"the symmetry operation {shortened(text)} is not understood")
    # Not gemmi's, whose translations are twenty-fourths: there are cells with fifths and others.
    operation = SymmOp.from_xyz_str(text.lower())
    if abs(abs(float(np.linalg.det(operation.rotation_matrix))) - 1) > 1e-6:
        raise UserError(f"the symmetry operation {shortened(text)} does not keep volumes")
    return operation.rotation_matrix, operation.translation_vector % 1


def _product(one: Operation, other: Operation) -> Operation:
    return one[0] @ other[0], (one[0] @ other[1] + one[1]) % 1


def _unique(operations: list[Operation]) -> Operation:
    """Returns the operations, each once, stacked."""
    rotation = np.array([rotation for rotation, _ in operations])
    translation = np.array([translation for _, translation in operations])
    first = {key: i for i, key in reversed(list(enumerate(operation_keys(rotation, translation))))}
    kept = sorted(first.values())
    return rotation[kept], translation[kept]


def _too_many(count: int) -> str:
    return f"{count} symmetry operations, more than {_MAX_OPERATIONS}"


def _other_name(block: gemmi.cif.Block, angles: np.ndarray, listed: Operation) -> str:
    """Returns what the file calls its group where that has other operations than those listed."""
    try:
        named = find_group(block, angles)
    except UserError:
        return ""  # a name that nobody needs
    keys = frozenset(operation_keys(*listed))
    groups = all_settings(named.number) if named.number else named.groups
    return "" if any(keys == group.keys for group in groups) else named.name


def _check_cell(symmetry: Symmetry, lengths: np.ndarray, angles: np.ndarray) -> None:
    """Refuses a cell whose lengths and angles the operations change."""
    cosines = np.cos(np.radians(angles))
    metric = np.eye(3)
    for (i, j), cosine in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
        metric[i, j] = metric[j, i] = cosine
    metric *= np.outer(lengths, lengths)
    moved = np.swapaxes(symmetry.rotation, 1, 2) @ metric @ symmetry.rotation
    if (np.abs(moved - metric) > _METRIC_TOLERANCE * np.outer(lengths, lengths)).any():
        cell = ", ".join(f"{value:g}" for value in (*lengths, *angles))
        raise UserError(f"the cell ({cell}) does not have the symmetry that the file gives")


def _values(block: gemmi.cif.Block, tag: str) -> list[str]:
    """Returns the values of a tag that are given, without quotes."""
    texts = (gemmi.cif.as_string(text).strip() for text in block.find_values(tag))
    return [text for text in texts if text not in ("", "?", ".")]
