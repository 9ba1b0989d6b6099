"""A fingerprint of training data: which labels of which crystals a model has seen."""

from __future__ import annotations

import hashlib

import numpy as np

from jaxmat.data.tables import Table

# Of coordinates and lattice vectors: beyond it lies the rounding noise of readers.
_DECIMALS = 6
# Rows that are hashed together, which is faster than each alone.
_AT_ONCE = 4096


def fingerprint(table: Table, labels: np.ndarray) -> str:
    """Returns the SHA-256 of ids, structures and labels, whatever the order of the rows.

    Args:
        table: the crystals.
        labels: in the property's unit, [rows].
    """
    digest, contents = hashlib.sha256(), table.contents
    # Adding zero makes a negative zero positive.
    numbers = (np.round(contents.numbers(), _DECIMALS) + 0.0).astype("<f8").data
    elements = contents.atomic_numbers().astype("<i4").data
    values = np.asarray(labels, "<f8").reshape(len(contents), -1).data
    sites = contents.sites.tolist()
    ends = np.cumsum(contents.sites).tolist()

    order = sorted(range(len(sites)), key=table.ids.__getitem__)
    for first in range(0, len(order), _AT_ONCE):
        parts: list[bytes | memoryview] = []
        for row in order[first : first + _AT_ONCE]:
            id, count, end = table.ids[row], sites[row], ends[row]
            start = end - count
            parts += (
                f"{len(id)} {id} {count} ".encode("utf-8", "surrogateescape"),
                numbers[9 * row + 3 * start : 9 * (row + 1) + 3 * end],
                elements[start:end],
                values[row : row + 1],
            )
        digest.update(b"".join(parts))
    return digest.hexdigest()
