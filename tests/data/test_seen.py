"""Crystals that a model has seen are recognised however they are written, and others are not."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs
from jaxmat.data.seen import NOTHING, both, mark, recognise
from jaxmat.data.tables import read_table

SETTINGS = GraphSettings(angles=False)


def graphs_of(structures: list[Structure]) -> list[CrystalGraph]:
    return list(build_graphs(structures, SETTINGS))


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return list(read_table("bundled:dielectric").structures[:60])


def test_a_crystal_is_recognised_however_it_is_written(structures: list[Structure]) -> None:
    seen = mark(graphs_of(structures), np.ones((60, 1), bool), ["x"])
    written = []
    for i, structure in enumerate(structures):
        other = structure.copy().make_supercell([1, 1, 2]) if i % 2 else structure.copy()
        other.translate_sites(range(len(other)), [0.1, 0.2, 0.3])
        other.apply_strain(0.0005)
        written.append(other)
    known, labels = recognise(seen, graphs_of(written))
    assert known.all() and labels.all()


def test_others_are_not(structures: list[Structure]) -> None:
    seen = mark(graphs_of(structures[:30]), np.ones((30, 1), bool), ["x"])
    strained = [structure.copy().apply_strain(0.02) for structure in structures[:30]]
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    known, labels = recognise(seen, graphs_of([*strained, salt]))
    assert not known.any() and not labels.any()
    assert not recognise(NOTHING, graphs_of(structures[:3]))[0].any()


def test_labels_are_told_apart_and_two_models_are_joined(structures: list[Structure]) -> None:
    graphs = graphs_of(structures[:4])
    first = mark(graphs[:2], np.array([[True, False], [False, True]]), ["x", "y"])
    joined = both(both(NOTHING, first), mark(graphs[1:3], np.ones((2, 1), bool), ["z"]))
    assert joined.properties == ("x", "y", "z")
    known, labels = recognise(joined, graphs)
    assert known.tolist() == [True, True, True, False]
    assert labels.tolist() == [
        [True, False, False],
        [False, True, True],  # from both
        [False, False, True],
        [False, False, False],
    ]
