"""The table of element features."""

from __future__ import annotations

from importlib import resources

import numpy as np

# The table has a row for each atomic number up to Lr.
LAST_ATOMIC_NUMBER = 103


def atom_features() -> np.ndarray:
    """Returns the features of each element, row = atomic number (row 0: zeros), float32 [104, 92].

    Source: the CGCNN table that the published ALIGNN uses; see atom_features.txt.
    """
    text = resources.files("jaxmat.crystals").joinpath("atom_features.txt").read_text()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    table = np.zeros((LAST_ATOMIC_NUMBER + 1, len(rows[0][2])), dtype=np.float32)
    for number, _, bits in rows:
        table[int(number)] = [int(bit) for bit in bits]
    return table
