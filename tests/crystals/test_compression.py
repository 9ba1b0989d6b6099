from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals import compression
from jaxmat.crystals import graph as graph_module
from jaxmat.crystals.compression import cluster, find_classes
from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import (
    CrystalGraph,
    GraphSettings,
    build_graph,
    build_graphs,
    chunks,
    plain_graph,
)
from jaxmat.crystals.neighbors import complete_shells
from jaxmat.errors import UserError

PLAIN = GraphSettings(compress=False)
SETTINGS = [
    GraphSettings(),
    GraphSettings("reference", canonical=True),
    GraphSettings("reference", canonical=False),
    GraphSettings(angles=False),
    GraphSettings("reference", angles=False),
]


def plain(settings: GraphSettings) -> GraphSettings:
    return replace(settings, compress=False)


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
        if not settings.angles:
            assert not len(graph.angle_cosine)
            continue
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
        graph = build_graph(crystal, GraphSettings())
        assert_same(graph, build_graph(crystal, PLAIN))
        assert all((rows == 1).all() for rows in counts(graph))


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


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_at_a_time_or_many_together(settings, structures, random_crystals, monkeypatch):
    crystals = [*structures.values(), *random_crystals] * 2
    monkeypatch.setattr(graph_module, "_PASS_SITES", 60)
    assert 2 < len(list(chunks(map(Content.of, crystals), 60))) < len(crystals) / 2
    together = list(build_graphs(crystals, settings))
    assert len(together) == len(crystals)
    for crystal, graph in zip(crystals, together, strict=True):
        assert_same(graph, build_graph(crystal, settings))


@given(sizes=st.lists(st.integers(1, 12), max_size=20), most=st.integers(1, 20))
def test_chunks_are_consecutive_and_as_large_as_may_be(sizes, most):
    crystals = [
        Content(np.ones(size, np.uint8), np.zeros((size, 3)), np.eye(3), np.ones(3, bool))
        for size in sizes
    ]
    parts = [
        [len(crystal.atomic_number) for crystal in part] for part in chunks(iter(crystals), most)
    ]
    assert sum(parts, []) == sizes
    assert all(part and (sum(part) <= most or len(part) == 1) for part in parts)
    assert all(sum(part) + after[0] > most for part, after in pairwise(parts))


@given(
    noise=st.floats(0, 3e-3), tolerance=st.sampled_from([1e-4, 1e-3, 1e-2]), seed=st.integers(0, 9)
)
@settings(max_examples=15, deadline=None)
def test_classes_are_no_wider_than_the_tolerance(structures, noise, tolerance, seed):
    """Of crystals that have nearly lost their symmetry."""
    crystals = [structures[i].copy() for i in list(structures)[:4]]
    for crystal in crystals:
        crystal.perturb(noise, min_distance=0, seed=seed)
    numbers = [np.array(crystal.atomic_numbers) for crystal in crystals]
    bonds = [complete_shells(Content.of(crystal), 12, 0.01) for crystal in crystals]
    graph = plain_graph(numbers, bonds, True)
    classes = find_classes(graph, tolerance)
    for labels, values in (
        (classes.bond, graph.bond_length),
        (classes.angle, graph.angle_cosine),
        (classes.site, graph.atomic_number),
        (classes.site, graph.site_crystal),
    ):
        high, low = np.full(labels.max() + 1, -np.inf), np.full(labels.max() + 1, np.inf)
        np.maximum.at(high, labels, values)
        np.minimum.at(low, labels, values)
        width = tolerance if values.dtype == np.float64 else 0
        assert (high - low <= width).all()


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


def sorted_clusters(values: list[float], tolerance: float) -> list[list[float]]:
    """The definition, one value after another."""
    values = sorted(values)
    gaps = np.diff(values)
    if len(values) == 1 or (values[-1] - values[0] <= tolerance and gaps.max() <= tolerance):
        return [values]
    cuts = [i + 1 for i, gap in enumerate(gaps) if gap > tolerance] or [int(gaps.argmax()) + 1]
    parts = [values[i:j] for i, j in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    return [cluster for part in parts for cluster in sorted_clusters(part, tolerance)]


@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=60),
    huge=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_clusters_are_those_of_the_definition(rows, huge, seed):
    """Also where group numbers leave few levels to sort values by."""
    near, group = (np.array(column) for column in zip(*rows, strict=True))
    values = 4e-4 * near + np.random.default_rng(seed).uniform(0, 1e-4, len(near))
    numbers = cluster(values, group * (2**30 if huge else 1), 1e-3)
    found = sorted(sorted(values[numbers == number].tolist()) for number in np.unique(numbers))
    expected = [
        part
        for one in np.unique(group)
        for part in sorted_clusters(values[group == one].tolist(), 1e-3)
    ]
    assert found == sorted(expected)


def test_nothing_has_no_clusters():
    assert cluster(np.empty(0), np.empty(0, int), 1e-3).shape == (0,)


@given(
    columns=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.tuples(*[st.sampled_from([0, 1, 2**40])] * n), min_size=1)
    )
)
def test_packed_rows_sort_as_the_rows_do(columns):
    """Also where no integer could hold them all."""
    packed = compression._pack(*np.array(columns).T)
    distinct = sorted(set(columns))
    numbers = np.unique(packed, return_inverse=True)[1]
    assert numbers.tolist() == [distinct.index(row) for row in columns]


def test_hashes_of_two_streams_are_all_different():
    labels = np.arange(1000)
    both = np.concatenate([compression._hashes(labels), compression._hashes(labels, stream=1)])
    assert len(np.unique(both)) == 2000


def test_a_tolerance_below_rounding_noise_is_refused():
    with pytest.raises(UserError, match="graph.tolerance is 0"):
        GraphSettings(tolerance=0.0)


def test_an_unknown_rule_is_named():
    with pytest.raises(UserError, match="neighbor_rule is 'nearest'"):
        GraphSettings("nearest")
