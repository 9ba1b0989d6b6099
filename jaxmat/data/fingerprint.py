"""A fingerprint of training data: which labels of which crystals a model has seen."""

from __future__ import annotations

import hashlib

import numpy as np

from jaxmat.data.tables import Table

# Of coordinates and lattice vectors: beyond it lies the rounding noise of readers.
_DECIMALS = 6


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
    values = np.asarray(labels, "<f8")
    sites = contents.sites.tolist()
    ends = np.cumsum(contents.sites).tolist()
    for row in sorted(range(len(sites)), key=table.ids.__getitem__):
        count, end = sites[row], ends[row]
        start = end - count
        digest.update(f"{len(table.ids[row])} {table.ids[row]} {count} ".encode())
        digest.update(numbers[9 * row + 3 * start : 9 * (row + 1) + 3 * end])
        digest.update(elements[start:end])
        digest.update(values[row].tobytes())
    return digest.hexdigest()
