"""The same crystal in two parts is found however it is written; near relatives are told apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.contents import Contents
from jaxmat.data.duplicates import _average_distances, describe_duplicates, find_duplicates
from jaxmat.data.splits import Split
from jaxmat.data.store import append, open_store
from jaxmat.data.tables import read_table

FCC = Structure(
    Lattice.cubic(3.61), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


def hcp(edge: float) -> Structure:
    """The ideal one, whose twelve nearest neighbours are as far away as those of fcc."""
    lattice = Lattice.hexagonal(edge, edge * (8 / 3) ** 0.5)
    return Structure(lattice, ["Cu", "Cu"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])


def same(one: Structure, other: Structure) -> bool:
    split = Split(np.array([0]), np.array([], int), np.array([1]))
    return bool(find_duplicates(Contents.of([one, other]), split))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axis=st.integers(0, 2), copies=st.integers(1, 3))
def test_a_crystal_is_found_however_it_is_written(seed, axis, copies):
    rng = np.random.default_rng(seed)
    scale = np.ones(3, int)
    scale[axis] = copies
    other = RUTILE.make_supercell(scale, in_place=False)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(other))
    moved = other.frac_coords + rng.uniform(-2, 2, 3) + rng.normal(0, 1e-5, (len(other), 3))
    written = Structure(
        Lattice(other.lattice.matrix @ turn), [other.species[i] for i in order], moved[order]
    )
    assert same(RUTILE, written) and same(FCC, FCC.get_primitive_structure())


def test_others_are_told_apart():
    assert not same(FCC, hcp(3.61 / 2**0.5))
    assert not same(RUTILE, RUTILE.copy().apply_strain(0.01, inplace=False))
    swapped = RUTILE.copy().replace_species({"Ti": "O", "O": "Ti"}, in_place=False)
    assert not same(RUTILE, swapped)
    moved = RUTILE.copy().translate_sites([0], [0, 0, 0.02])
    assert not same(RUTILE, moved)


def test_only_crystals_in_two_parts_count():
    crystals = Contents.of([FCC, FCC, RUTILE, RUTILE, FCC, RUTILE, hcp(2.5)])
    split = Split(np.array([0, 1]), np.array([2, 6]), np.array([4, 5]))
    found = find_duplicates(crystals, split)
    assert sorted((d.row, d.part, d.other_part) for d in found) == [
        (4, "test", "train"),
        (5, "test", "validation"),
    ]
    text = describe_duplicates(found, list("abcdefg"))
    assert text.startswith("In two parts of the split: 2 crystals:")
    assert "1 of the test part in the validation part (f = c)" in text
    assert (
        find_duplicates(crystals, Split(*(np.array(rows) for rows in ([0, 1], [2, 3], [6])))) == []
    )


def test_many_equal_crystals_are_compared_once_each():
    split = Split(*np.array_split(np.arange(300), 3))
    assert len(find_duplicates(Contents.of([FCC] * 300), split)) == 200


def test_graphs_save_work_and_change_nothing(tmp_path):
    """Strains of some crystals: from too small to tell them apart to larger than most."""
    some = list(read_table("bundled:dielectric").structures[:6])
    rng, crystals = np.random.default_rng(0), []
    for i in range(120):
        strain = rng.uniform(-1, 1, 3) * rng.choice([1e-5, 1e-3, 3e-3, 0.03])
        crystals.append(some[i % 6].copy().apply_strain(strain, inplace=False))
    contents, split = Contents.of(crystals), Split(*np.array_split(rng.permutation(120), 3))
    rows, settings = np.concatenate(split), GraphSettings(angles=False)
    keys = np.array([crystal.key() for crystal in contents.take(rows)], "S16")
    append(tmp_path, settings, keys, build_graphs([crystals[row] for row in rows], settings))
    found = find_duplicates(contents, split, open_store(tmp_path), settings)
    assert found == find_duplicates(contents, split) and 20 < len(found) < 70
    wide = find_duplicates(contents, split, open_store(tmp_path), settings, wide=True)
    assert wide == find_duplicates(contents, split, wide=True) and len(wide) > len(found)


def test_of_many_compositions_and_parts_each_pair_is_found_as_one_by_one():
    """Groups of all sizes, volumes and distances on both sides of their limits."""
    some = list(read_table("bundled:dielectric").structures[:5])
    rng, crystals = np.random.default_rng(1), []
    for _ in range(90):
        strain = rng.uniform(-1, 1, 3) * rng.choice([0, 1e-3, 4e-3])
        crystals.append(some[rng.integers(5)].copy().apply_strain(strain, inplace=False))
    rows = rng.permutation(90)
    split = Split(rows[:40], rows[40:55], rows[55:80])  # some are in no part
    contents = Contents.of(crystals)
    compositions, volumes = contents.compositions(), contents.volumes() / contents.sites
    distances = [_average_distances(one) for one in contents]

    def are_same(i: int, j: int) -> bool:
        return (
            compositions[i] == compositions[j]
            and abs(volumes[i] - volumes[j]) <= 0.01 * volumes[i]
            and np.abs(distances[i] - distances[j]).max() <= 0.005
        )

    expected = set()
    for part, name in ((1, "validation"), (2, "test")):
        earlier = [(j, other) for other in range(part) for j in split[other].tolist()]
        for i in split[part].tolist():
            if found := [(j, other) for j, other in earlier if are_same(i, j)]:
                expected.add((i, name, found[0][0], Split._fields[found[0][1]]))
    assert {tuple(one) for one in find_duplicates(contents, split)} == expected
    assert 5 < len(expected) < 40
