from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks import golden
from jaxmat.crystals.checks import find_problem
from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import GraphSettings, build_graph
from jaxmat.crystals.neighbors import (
    MAX_CUTOFF,
    Bonds,
    all_complete_shells,
    complete_shells,
    neighbor_distances,
    reference_shells,
)

GRAPH_FILES = {True: "graphs_canonical.npz", False: "graphs_noncanonical.npz"}


@pytest.mark.parametrize("canonical", GRAPH_FILES)
def test_reference_bonds_are_the_golden_ones(canonical, golden_folder, structures):
    graphs = golden.read_arrays(golden_folder / GRAPH_FILES[canonical])
    for i, structure in structures.items():
        numbers = [site.specie.Z for site in structure]
        np.testing.assert_array_equal(numbers, graphs[f"s{i}_z"])
        bonds = reference_shells(Content.of(structure), 12, 8.0, canonical)
        assert golden.same_bonds(bonds, golden.read_bonds(graphs, i)), f"crystal {i}"


def test_a_missing_or_a_moved_bond_is_noticed(structures):
    bonds = reference_shells(Content.of(structures[2]), 12, 8.0, canonical=True)
    moved = bonds._replace(vector=bonds.vector + 1e-5)
    assert golden.same_bonds(bonds, bonds)
    assert not golden.same_bonds(bonds, moved)
    assert not golden.same_bonds(bonds, Bonds(*(rows[1:] for rows in bonds)))


@pytest.mark.parametrize("canonical", GRAPH_FILES)
def test_reference_angles_are_all_pairs_of_consecutive_bonds(canonical, golden_folder, structures):
    """The pairs are found here by comparing every bond with every other, duplicates included."""
    settings = GraphSettings("reference", canonical=canonical, compress=False)
    graphs = golden.read_arrays(golden_folder / GRAPH_FILES[canonical])
    for i, structure in structures.items():
        found = build_graph(structure, settings)
        sender, receiver, vector = golden.read_bonds(graphs, i)
        pairs = (receiver[:, None] == sender[None, :]) & ~np.eye(len(sender), dtype=bool)
        direction = vector / np.linalg.norm(vector, axis=1, keepdims=True)
        expected = np.clip(-direction @ direction.T, -1, 1)[pairs]
        assert len(found.angle_cosine) == len(expected)
        np.testing.assert_allclose(np.sort(found.angle_cosine), np.sort(expected), atol=1e-12)
        assert (
            found.bond_receiver[found.angle_sender] == found.bond_sender[found.angle_receiver]
        ).all()


def brute_force_shells(structure: Structure, nearest: int, tolerance: float) -> Bonds:
    """The rule of complete shells, word by word, on all images that could matter."""
    images = np.array(list(product(range(-6, 7), repeat=3)))
    cartesian, lattice = structure.cart_coords, structure.lattice.matrix
    # vector[i, j, image] leads from site i to an image of site j.
    vector = (cartesian[None, :, None] + images @ lattice) - cartesian[:, None, None]
    distance = np.linalg.norm(vector, axis=-1)
    distance[distance < 1e-8] = np.inf
    shell = np.sort(distance.reshape(len(structure), -1), axis=1)[:, nearest - 1] + tolerance
    sender, receiver, image = np.nonzero(
        distance <= np.maximum(shell[:, None, None], shell[None, :, None])
    )
    return Bonds(sender, receiver, vector[sender, receiver, image])


@pytest.mark.parametrize("nearest", [4, 12])
def test_complete_shells_are_what_their_rule_says(nearest, structures, random_crystals):
    crystals = random_crystals + [structures[i] for i in (2, 4, 7, 15)]
    for crystal in crystals:
        # The brute force knows few images: it needs coordinates in the cell.
        crystal = Structure(crystal.lattice, crystal.species, crystal.frac_coords % 1)
        found = complete_shells(Content.of(crystal), nearest, 0.01)
        assert golden.same_bonds(found, brute_force_shells(crystal, nearest, 0.01))


def test_every_bond_is_there_in_both_directions_and_sorted_by_receiver(structures, random_crystals):
    for crystal in [*structures.values(), *random_crystals]:
        bonds = complete_shells(Content.of(crystal), 12, 0.01)
        assert golden.same_bonds(bonds, Bonds(bonds.receiver, bonds.sender, -bonds.vector))
        assert (np.diff(bonds.receiver) >= 0).all()
        assert (np.bincount(bonds.receiver) >= 12).all()


def test_shells_of_a_needle_of_a_cell_reach_across_many_cells():
    """A cell that is 2 Å high and 90 Å long."""
    structure = Structure(Lattice.orthorhombic(2.0, 2.1, 90.0), ["Si"], [[0.0, 0.0, 0.0]])
    bonds = complete_shells(Content.of(structure), 12, 0.01)
    assert len(bonds.sender) == 12
    assert np.linalg.norm(bonds.vector, axis=1).max() < 90


def test_cells_skewed_in_several_directions_change_no_bonds_of_others():
    """Cubes, three of them written with a vector that leads 45,000 cells away."""
    skewed = []
    for axis in range(3):
        lattice = np.diag([4.0] * 3)
        lattice[axis - 1] += 45_000 * lattice[axis]
        skewed.append(Structure(lattice, ["Cu"], [[0.0, 0.0, 0.0]]))
    cubes = [Structure(Lattice.cubic(4.0), ["Cu"], [[0.0, 0.0, 0.0]])] * 200
    crystals = [Content.of(crystal) for crystal in (*skewed, *cubes)]
    assert not any(map(find_problem, crystals))
    alone = complete_shells(crystals[-1], 12, 0.01)
    for bonds in all_complete_shells(crystals, 12, 0.01):
        assert golden.same_bonds(bonds, alone)


def test_the_reference_search_grows_until_there_are_enough_neighbors():
    """A lone atom in a cube of 7 Å has 6 neighbours within 8 Å and 12 more at 9.9 Å."""
    structure = Structure(Lattice.cubic(7.0), ["Ar"], [[0.0, 0.0, 0.0]])
    bonds = reference_shells(Content.of(structure), 12, 8.0, canonical=False)
    lengths = np.linalg.norm(bonds.vector, axis=1)
    # Each self-image is found with both signs and emitted in both directions.
    assert np.sum(np.isclose(lengths, 7.0)) == 12
    assert np.sum(np.isclose(lengths, 7.0 * 2**0.5)) == 24
    assert len(lengths) == 36


RULES = {
    "complete shells": lambda crystal: complete_shells(Content.of(crystal), 12, 0.01),
    "canonical": lambda crystal: reference_shells(Content.of(crystal), 12, 8.0, True),
    "non-canonical": lambda crystal: reference_shells(Content.of(crystal), 12, 8.0, False),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_lone_atom_has_no_bonds(rule):
    bonds = RULES[rule](Structure(Lattice.cubic(40.0), ["Ar"], [[0.3, 0.0, 0.0]]))
    assert [rows.shape for rows in bonds] == [(0,), (0,), (0, 3)]


@pytest.mark.parametrize("rule", RULES)
def test_a_molecule_has_the_bonds_there_are(rule):
    bonds = RULES[rule](Structure(Lattice.cubic(40.0), ["N", "N"], [[0, 0, 0], [0, 0, 0.0275]]))
    assert set(zip(bonds.sender.tolist(), bonds.receiver.tolist(), strict=True)) == {(0, 1), (1, 0)}
    np.testing.assert_allclose(np.abs(bonds.vector), [[0, 0, 1.1]] * len(bonds.sender))


def test_a_lone_atom_far_from_the_others_changes_none_of_their_bonds(structures):
    """It makes no other site search farther, and where it finds none it has none."""
    crystal = structures[4].make_supercell([2, 2, 2], in_place=False)
    slab = Structure(
        Lattice.orthorhombic(60, 60, 120),
        crystal.species,
        crystal.cart_coords,
        coords_are_cartesian=True,
    )
    both = slab.copy().append("Xe", [0.5, 0.5, 0.7])
    for rule in RULES.values():
        alone, with_xenon = rule(slab), rule(both)
        assert (with_xenon.receiver < len(slab)).all()
        assert golden.same_bonds(alone, with_xenon)


@pytest.mark.parametrize("edge", [MAX_CUTOFF, MAX_CUTOFF + 0.02])
def test_rounding_does_not_decide_what_lies_at_the_last_radius(edge):
    """Six neighbours at the very radius where the search ends, whatever the orientation."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        lone = Structure(Lattice(edge * turn), ["Ar"], [rng.uniform(size=3)])
        bonds = complete_shells(Content.of(lone), 12, 0.01)
        assert len(bonds.sender) == (6 if edge == MAX_CUTOFF else 0)


@pytest.mark.parametrize("rule", RULES)
def test_it_does_not_matter_in_which_cell_a_site_is_written(rule, structures):
    crystal = structures[4]
    away = np.array([[90, -70, 3]] + [[0, 0, 0]] * (len(crystal) - 1))
    moved = Structure(crystal.lattice, crystal.species, crystal.frac_coords + away)
    if rule != "complete shells":  # the last bit decides there
        moved, crystal = (
            Structure(c.lattice, c.species, c.frac_coords % 1) for c in (moved, crystal)
        )
    assert golden.same_bonds(RULES[rule](crystal), RULES[rule](moved))


def test_no_bond_crosses_a_side_that_is_not_periodic():
    lattice = Lattice(np.diag([4.0, 4.0, 6.0]), pbc=(True, True, False))
    slab = Structure(lattice, ["H", "H"], [[0, 0, 0.05], [0, 0, 0.95]])
    bonds = complete_shells(Content.of(slab), 12, 0.01)
    assert np.abs(bonds.vector[:, 2]).max() == pytest.approx(0.9 * 6)
    assert np.linalg.norm(bonds.vector, axis=1).min() == pytest.approx(4)


def test_neighbor_distances_are_the_nearest_ones(random_crystals):
    images = np.array(list(product(range(-4, 5), repeat=3)))
    for crystal in random_crystals:
        found = neighbor_distances(Content.of(crystal), 20)
        cartesian = (crystal.frac_coords % 1) @ crystal.lattice.matrix
        every = (cartesian[None, :, None] + images @ crystal.lattice.matrix) - cartesian[
            :, None, None
        ]
        distance = np.sort(np.linalg.norm(every, axis=-1).reshape(len(crystal), -1), axis=1)
        np.testing.assert_allclose(found, distance[:, 1:21])
    lone = neighbor_distances(Content.of(Structure(Lattice.cubic(20), ["Ar"], [[0, 0, 0]])), 8)
    np.testing.assert_allclose(lone, [[20.0] * 6 + [MAX_CUTOFF] * 2])
