"""Descriptors: what they are by definition, finite for every crystal, the same however written."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.invariance import REWRITES
from jaxmat.crystals.descriptors import COLUMNS, descriptor_blocks, descriptor_columns
from jaxmat.crystals.graph import GraphSettings, build_graph, build_graphs

NAMES = [column.name for column in descriptor_columns()]


def described(structure: Structure, **settings: object) -> dict[str, float]:
    graph = build_graph(structure, GraphSettings(**settings))
    return dict(zip(NAMES, graph.descriptors.tolist(), strict=True))


def salt() -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )


def test_columns_have_names_and_units() -> None:
    assert len(set(NAMES)) == len(NAMES) == COLUMNS == sum(descriptor_blocks())
    assert all(column.unit for column in descriptor_columns())
    units = dict(descriptor_columns())
    assert units["mean_electronegativity"] == "Pauling scale"
    assert units["maximum_log_atomic_mass"] == "ln(u)"
    assert NAMES[descriptor_blocks()[0]] == "log_volume_per_atom"


def test_of_salt_they_are_what_the_definitions_say() -> None:
    found = described(salt())
    assert found["mean_electronegativity"] == pytest.approx((0.93 + 3.16) / 2)
    assert found["mean_deviation_electronegativity"] == pytest.approx((3.16 - 0.93) / 2)
    assert found["range_group"] == 16 and found["maximum_group"] == 17
    assert found["minimum_log_atomic_mass"] == pytest.approx(np.log(22.98976928))
    assert (found["elements"], found["composition_sum_of_squares"]) == (2, 0.5)
    assert found["composition_entropy"] == pytest.approx(np.log(2))
    assert np.exp(found["log_volume_per_atom"]) == pytest.approx(5.64**3 / 8)
    assert np.exp(found["log_mass_density"]) == pytest.approx(salt().density, rel=1e-4)
    for name in ("mean", "least", "greatest"):
        assert np.exp(found[f"log_{name}_nearest_distance"]) == pytest.approx(2.82)
    # Six bonds of 2.82 Å, and twelve of 3.988 Å between like ions that complete the shell.
    weight = 12 * np.exp(-2.82 * (np.sqrt(2) - 1) / 0.3)
    length = (6 * 2.82 + weight * 2.82 * np.sqrt(2)) / (6 + weight)
    assert np.exp(found["log_mean_bond_length"]) == pytest.approx(length)
    difference = found["mean_bond_electronegativity_difference"]
    assert difference == pytest.approx((3.16 - 0.93) * 6 / (6 + weight))


def test_they_are_those_of_the_plain_graph(structures) -> None:
    for structure in structures.values():
        whole = described(structure, compress=False)
        assert described(structure) == pytest.approx(whole, abs=2e-3)


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__)
def test_they_do_not_depend_on_how_a_crystal_is_written(rewrite, structures) -> None:
    rng = np.random.default_rng(0)
    crystals = [structures[number] for number in sorted(structures)[:12]]
    others = [rewrite(crystal, rng) for crystal in crystals]
    here, there = (
        np.array([graph.descriptors for graph in build_graphs(each, GraphSettings())])
        for each in (crystals, others)
    )
    np.testing.assert_allclose(there, here, atol=1e-4)


def test_they_do_not_depend_on_the_crystals_beside_it(random_crystals) -> None:
    together = build_graphs([salt(), *random_crystals], GraphSettings())
    for structure, graph in zip([salt(), *random_crystals], together, strict=True):
        alone = build_graph(structure, GraphSettings()).descriptors
        np.testing.assert_allclose(graph.descriptors, alone, rtol=1e-12)


@pytest.mark.parametrize("symbol", ["H", "He", "Ar", "Fe", "At", "Cm", "Lr"])
@pytest.mark.parametrize("size", [2.5, 8.0, 60.0])
def test_a_single_atom_has_finite_ones_even_where_it_has_no_neighbor(symbol, size) -> None:
    found = described(Structure(Lattice.cubic(size), [symbol], [[0, 0, 0]]))
    assert np.isfinite(list(found.values())).all()
    nearest = np.exp(found["log_least_nearest_distance"])
    assert nearest == pytest.approx(size if size < 24 else 24.0)


def test_atoms_with_and_without_neighbors_in_one_crystal() -> None:
    crystal = Structure(Lattice.cubic(60), ["O", "O", "Xe"], [[0] * 3, [0.02, 0, 0], [0.5] * 3])
    found = described(crystal)
    assert np.isfinite(list(found.values())).all()
    assert np.exp(found["log_mean_nearest_distance"]) == pytest.approx((1.2 + 1.2 + 24) / 3)
    assert np.exp(found["log_mean_bond_length"]) == pytest.approx(1.2)
