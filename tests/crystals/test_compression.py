from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.compression import cluster
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graph, build_graphs
from jaxmat.errors import UserError

PLAIN = GraphSettings(compress=False)
SETTINGS = [
    GraphSettings(),
    GraphSettings("reference", canonical=True),
    GraphSettings("reference", canonical=False),
]


def plain(settings: GraphSettings) -> GraphSettings:
    return GraphSettings(settings.neighbor_rule, canonical=settings.canonical, compress=False)


def counts(graph: CrystalGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many sites, bonds and angles stand behind each row."""
    bond = graph.bond_multiplicity * graph.site_count[graph.bond_receiver]
    return graph.site_count, bond, graph.angle_multiplicity * bond[graph.angle_receiver]


def assert_same(one: CrystalGraph, other: CrystalGraph) -> None:
    for name, left, right in zip(CrystalGraph._fields, one, other, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert left.dtype == right.dtype, name


@pytest.mark.parametrize("settings", SETTINGS)
def test_counts_add_up_to_the_plain_graph(settings, structures):
    graphs = build_graphs(structures.values(), settings)
    for structure, graph in zip(structures.values(), graphs, strict=True):
        whole = build_graph(structure, plain(settings))
        for rows, everything in zip(counts(graph), counts(whole), strict=True):
            assert (everything == 1).all()
            assert rows.sum() == len(everything)
        sites, bonds, angles = counts(graph)
        for element in set(graph.atomic_number):
            of_element = sites[graph.atomic_number == element].sum()
            assert of_element == np.sum(whole.atomic_number == element)
        np.testing.assert_allclose(bonds @ graph.bond_length, whole.bond_length.sum(), rtol=1e-12)
        np.testing.assert_allclose(
            angles @ graph.angle_cosine, whole.angle_cosine.sum(), rtol=1e-12, atol=1e-9
        )


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_flows_into_a_class_flows_into_each_of_its_members(settings, structures):
    """A bond class ends at its receiver's sites as often as it starts at its sender's."""
    for graph in build_graphs(structures.values(), settings):
        into = np.bincount(graph.bond_receiver, weights=graph.bond_multiplicity)
        assert (into >= 12).all()
        _, bonds, _ = counts(graph)
        # Bonds come in both directions, so as many start at a class of sites as end there.
        np.testing.assert_array_equal(
            np.bincount(graph.bond_sender, weights=bonds),
            np.bincount(graph.bond_receiver, weights=bonds),
        )
        # Each bond has an angle with every bond that ends where it starts, but maybe itself.
        angles = np.bincount(graph.angle_receiver, weights=graph.angle_multiplicity)
        selves = into[graph.bond_sender] - angles
        if settings.neighbor_rule == "complete_shells":
            assert (selves == 0).all()
        else:
            self_image = graph.bond_sender == graph.bond_receiver
            assert set(selves[self_image]) <= {0, 1} and (selves[~self_image] == 0).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_rows_are_sorted_by_receiver(settings, structures):
    for graph in build_graphs(structures.values(), settings):
        assert (np.diff(graph.bond_receiver) >= 0).all()
        assert (np.diff(graph.angle_receiver) >= 0).all()


def test_crystals_without_symmetry_come_through_unchanged(random_crystals):
    for crystal in random_crystals:
        assert_same(build_graph(crystal, GraphSettings()), build_graph(crystal, PLAIN))


def test_fcc_has_one_site_one_bond_and_five_angles():
    copper = Structure(
        Lattice.cubic(3.61), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    graph = build_graph(copper, GraphSettings())
    assert graph.site_count.tolist() == [4]
    assert graph.bond_multiplicity.tolist() == [12]
    np.testing.assert_allclose(graph.bond_length, 3.61 / 2**0.5)
    order = np.argsort(graph.angle_cosine)
    np.testing.assert_allclose(graph.angle_cosine[order], [-1, -0.5, 0, 0.5, 1], atol=1e-12)
    assert graph.angle_multiplicity[order].tolist() == [1, 4, 2, 4, 1]


def test_sites_are_told_apart_by_their_surroundings_alone():
    """A chain Na-Cl-Na-Cl-Cl: one Cl is between two Na, the other two are mirror images."""
    chain = Structure(
        Lattice.tetragonal(4.0, 16.0),
        ["Na", "Cl", "Na", "Cl", "Cl"],
        [[0, 0, height] for height in (0.0, 0.2, 0.4, 0.6, 0.8)],
    )
    graph = build_graph(chain, GraphSettings())
    assert graph.atomic_number.tolist() == [11, 17, 17]
    assert graph.site_count.tolist() == [2, 1, 2]


def test_one_at_a_time_or_many_together(structures, random_crystals):
    crystals = [*structures.values(), *random_crystals] * 4  # more than share one pass
    together = list(build_graphs(crystals, GraphSettings()))
    assert len(together) == len(crystals)
    for crystal, graph in zip(crystals, together, strict=True):
        assert_same(graph, build_graph(crystal, GraphSettings()))


def test_a_supercell_has_the_classes_of_its_cell(structures):
    for structure in structures.values():
        small = build_graph(structure, GraphSettings())
        big = build_graph(structure.make_supercell([2, 1, 1], in_place=False), GraphSettings())
        for rows in ("site_count", "bond_length", "angle_cosine"):
            assert len(getattr(small, rows)) == len(getattr(big, rows))
        assert sorted(2 * small.site_count) == sorted(big.site_count)
        np.testing.assert_allclose(np.sort(small.bond_length), np.sort(big.bond_length), rtol=1e-12)


finite = st.floats(-10, 10)


@given(
    rows=st.lists(st.tuples(finite, st.integers(0, 2)), min_size=1, max_size=40),
    tolerance=st.sampled_from([1e-3, 0.1, 3.0]),
)
@settings(max_examples=200)
def test_clusters_are_narrow_contiguous_and_within_one_group(rows, tolerance):
    values, group = (np.array(column) for column in zip(*rows, strict=True))
    number = cluster(values, group, tolerance)
    for label in np.unique(number):
        members = number == label
        assert np.ptp(values[members]) <= tolerance
        assert len(np.unique(group[members])) == 1
    for one in np.unique(group):
        order = np.argsort(values[group == one], kind="stable")
        runs = number[group == one][order]
        assert np.count_nonzero(np.diff(runs)) == len(np.unique(runs)) - 1


@given(data=st.data())
@settings(max_examples=100)
def test_values_that_differ_by_rounding_stay_together(data):
    """However near to each other the centres lie: here 0.6 of the tolerance apart."""
    tolerance = 1e-3
    center = np.array(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=40)))
    noise = st.lists(st.floats(-1e-12, 1e-12), min_size=len(center), max_size=len(center))
    values = 0.6 * tolerance * center + np.array(data.draw(noise))
    number = cluster(values, np.zeros(len(values), int), tolerance)
    for one in np.unique(center):
        assert len(np.unique(number[center == one])) == 1


def test_an_unknown_rule_is_named():
    with pytest.raises(UserError, match="neighbor_rule is 'nearest'"):
        GraphSettings("nearest")
