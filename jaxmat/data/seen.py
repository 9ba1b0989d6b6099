"""Which crystals a model has seen the labels of, kept in a few bytes each to be recognised later.

Of a crystal there are a hash of its reduced composition, its volume for each atom and the mean,
least and greatest distance of the nearest neighbours. So a repeated relaxation is recognised as
well as another way to write the cell; polytypes of the same layers may be taken for one crystal.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from math import gcd
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.descriptors import descriptor_columns
from jaxmat.crystals.graph import CrystalGraph

# Logarithms, with how much of them may differ: 1 % of the volume, 0.3 % of a distance, and the
# rounding of half precision.
_MEASURES = {
    "log_volume_per_atom": 0.012,
    "log_mean_nearest_distance": 0.004,
    "log_least_nearest_distance": 0.004,
    "log_greatest_nearest_distance": 0.004,
}
_COLUMNS = [[column.name for column in descriptor_columns()].index(name) for name in _MEASURES]
_TOLERANCES = np.array(list(_MEASURES.values()))


class Seen(NamedTuple):
    """Crystals whose labels have trained a model or chosen its checkpoint.

    Attributes:
        properties: names of the labels.
        composition: hash of each, uint32 [crystals].
        measures: of each, float16 [crystals, 4].
        labelled: whether there was a label, uint8, 0 or 1, [crystals, properties].
    """

    properties: tuple[str, ...]
    composition: np.ndarray
    measures: np.ndarray
    labelled: np.ndarray


def seen_shapes(
    crystals: int = 0, properties: int = 0
) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Returns dtype and shape of each array of `Seen`."""
    return {
        "composition": (np.uint32, (crystals,)),
        "measures": (np.float16, (crystals, len(_MEASURES))),
        "labelled": (np.uint8, (crystals, properties)),
    }


def mark(graphs: Sequence[CrystalGraph], labelled: np.ndarray, properties: Sequence[str]) -> Seen:
    """Returns what crystals are recognised by.

    Args:
        graphs: of the crystals.
        labelled: whether there is a label, bool [crystals, properties].
        properties: their names.
    """
    marks = [(_composition(graph), graph.descriptors[_COLUMNS]) for graph in graphs]
    return Seen(
        tuple(properties),
        np.array([composition for composition, _ in marks], np.uint32),
        np.array([measures for _, measures in marks], np.float16).reshape(-1, len(_MEASURES)),
        np.asarray(labelled, np.uint8),
    )


def both(seen: Seen, more: Seen) -> Seen:
    """Returns the crystals of two together; one that is in both is there twice."""
    properties = tuple(dict.fromkeys([*seen.properties, *more.properties]))
    labelled = [
        np.stack(
            [
                one.labelled[:, one.properties.index(name)]
                if name in one.properties
                else np.zeros(len(one.labelled), np.uint8)
                for name in properties
            ],
            axis=1,
        )
        for one in (seen, more)
    ]
    return Seen(
        properties,
        np.concatenate([seen.composition, more.composition]),
        np.concatenate([seen.measures, more.measures]),
        np.concatenate(labelled),
    )


def recognise(seen: Seen, graphs: Sequence[CrystalGraph]) -> tuple[np.ndarray, np.ndarray]:
    """Finds crystals among those that a model has seen.

    Args:
        seen: what it has seen.
        graphs: of the crystals.

    Returns:
        Whether each is there, bool [crystals], and with which labels, bool [crystals, properties].
    """
    rows: dict[int, list[int]] = defaultdict(list)
    for row, composition in enumerate(seen.composition.tolist()):
        rows[composition].append(row)
    asked = mark(graphs, np.zeros((len(graphs), 0)), ())
    known = np.zeros(len(graphs), bool)
    labels = np.zeros((len(graphs), len(seen.properties)), bool)
    for i, composition in enumerate(asked.composition.tolist()):
        alike = rows.get(composition, [])
        distance = np.abs(seen.measures[alike].astype(float) - asked.measures[i].astype(float))
        same = np.flatnonzero((distance <= _TOLERANCES).all(axis=1))
        known[i] = bool(same.size)
        labels[i] = seen.labelled[np.array(alike, int)[same]].any(axis=0)
    return known, labels


# Of a model with random weights.
NOTHING = mark((), np.zeros((0, 0)), ())


def _composition(graph: CrystalGraph) -> int:
    """Returns a hash of the reduced composition."""
    numbers, places = np.unique(graph.atomic_number, return_inverse=True)
    counts = np.bincount(places, graph.site_count).astype(int).tolist()
    divisor = reduce(gcd, counts)
    text = ",".join(f"{z}:{n // divisor}" for z, n in zip(numbers.tolist(), counts, strict=True))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
