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
    digest = hashlib.sha256()
    for row in sorted(range(len(table.ids)), key=table.ids.__getitem__):
        structure = table.structures[row]
        digest.update(f"{len(table.ids[row])} {table.ids[row]} {len(structure)} ".encode())
        for values in (structure.lattice.matrix, structure.frac_coords):
            # Adding zero makes a negative zero positive.
            digest.update((np.round(values, _DECIMALS) + 0.0).astype("<f8").tobytes())
        digest.update(np.array([site.specie.Z for site in structure], "<i4").tobytes())
        digest.update(np.asarray(labels[row], "<f8").tobytes())
    return digest.hexdigest()
