from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks import golden
from jaxmat.crystals.graph import GraphSettings, build_graph
from jaxmat.crystals.neighbors import Bonds, complete_shells, reference_shells

GRAPH_FILES = {True: "graphs_canonical.npz", False: "graphs_noncanonical.npz"}


@pytest.mark.parametrize("canonical", GRAPH_FILES)
def test_reference_bonds_are_the_golden_ones(canonical, golden_folder, structures):
    graphs = golden.read_arrays(golden_folder / GRAPH_FILES[canonical])
    for i, structure in structures.items():
        numbers = [site.specie.Z for site in structure]
        np.testing.assert_array_equal(numbers, graphs[f"s{i}_z"])
        bonds = reference_shells(structure, 12, 8.0, canonical)
        assert golden.same_bonds(bonds, golden.read_bonds(graphs, i)), f"crystal {i}"


def test_a_missing_or_a_moved_bond_is_noticed(structures):
    bonds = reference_shells(structures[2], 12, 8.0, canonical=True)
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
        found = complete_shells(crystal, nearest, 0.01)
        assert golden.same_bonds(found, brute_force_shells(crystal, nearest, 0.01))


def test_every_bond_is_there_in_both_directions_and_sorted_by_receiver(structures, random_crystals):
    for crystal in [*structures.values(), *random_crystals]:
        bonds = complete_shells(crystal, 12, 0.01)
        assert golden.same_bonds(bonds, Bonds(bonds.receiver, bonds.sender, -bonds.vector))
        assert (np.diff(bonds.receiver) >= 0).all()
        assert (np.bincount(bonds.receiver) >= 12).all()


def test_shells_of_a_needle_of_a_cell_reach_across_many_cells():
    """A cell that is 2 Å high and 90 Å long."""
    structure = Structure(Lattice.orthorhombic(2.0, 2.1, 90.0), ["Si"], [[0.0, 0.0, 0.0]])
    bonds = complete_shells(structure, 12, 0.01)
    assert len(bonds.sender) == 12
    assert np.linalg.norm(bonds.vector, axis=1).max() < 90


def test_the_reference_search_grows_until_there_are_enough_neighbors():
    """A lone atom in a cube of 7 Å has 6 neighbours within 8 Å and 12 more at 9.9 Å."""
    structure = Structure(Lattice.cubic(7.0), ["Ar"], [[0.0, 0.0, 0.0]])
    bonds = reference_shells(structure, 12, 8.0, canonical=False)
    lengths = np.linalg.norm(bonds.vector, axis=1)
    # Each self-image is found with both signs and emitted in both directions.
    assert np.sum(np.isclose(lengths, 7.0)) == 12
    assert np.sum(np.isclose(lengths, 7.0 * 2**0.5)) == 24
    assert len(lengths) == 36
