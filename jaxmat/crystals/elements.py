"""What is known of the elements: the published table of bits, and continuous properties."""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np

# The tables have a row for each atomic number up to Lr.
LAST_ATOMIC_NUMBER = 103


class ElementProperties(NamedTuple):
    """Properties of the elements.

    Attributes:
        names: of the properties.
        units: of each property, "1" for a number without.
        values: row = atomic number (row 0: NaN), NaN where a value is missing, read-only
            float64 [104, properties].
        filled: the same with the median of the elements for missing values, in row 0, too.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    filled: np.ndarray


def atom_features() -> np.ndarray:
    """Returns the features of each element, row = atomic number (row 0: zeros), float32 [104, 92].

    Source: the CGCNN table that the published ALIGNN uses; see atom_features.txt.
    """
    rows = [line.split() for line in _lines("atom_features.txt") if not line.startswith("#")]
    table = np.zeros((LAST_ATOMIC_NUMBER + 1, len(rows[0][2])), dtype=np.float32)
    for number, _, bits in rows:
        table[int(number)] = [int(bit) for bit in bits]
    return table


@functools.cache
def element_properties() -> ElementProperties:
    """Returns 19 properties of each element.

    Source: pymatgen's data on the elements; see element_properties.txt.
    """
    lines = _lines("element_properties.txt")
    header = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    units = {
        name: rest.partition(":")[0] for name, _, rest in (line.partition(", ") for line in header)
    }
    (_, *names), *rows = (line.split() for line in lines if not line.startswith("#"))
    values = np.full((LAST_ATOMIC_NUMBER + 1, len(names)), np.nan)
    values[1:] = [[np.nan if text == "-" else float(text) for text in row[1:]] for row in rows]
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    values.flags.writeable = filled.flags.writeable = False
    return ElementProperties(tuple(names), tuple(units[name] for name in names), values, filled)


def standard_properties() -> np.ndarray:
    """Returns the properties with mean 0 and deviation 1 over the elements.

    A missing value is the median of the elements.

    Returns:
        Row = atomic number (row 0: zeros), float32 [104, 19].
    """
    values = element_properties().filled.copy()
    values[1:] = (values[1:] - values[1:].mean(axis=0)) / values[1:].std(axis=0)
    values[0] = 0
    return values.astype(np.float32)


def _lines(name: str) -> list[str]:
    return resources.files("jaxmat.crystals").joinpath(name).read_text("utf-8").splitlines()
