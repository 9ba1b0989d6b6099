"""Small files from public bug reports, written anew: each is read as it is meant, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from jaxmat.data.reading import Reading, read
from jaxmat.data.tables import read_rows

CASES = Path(__file__).parent / "cases"
TABLES = CASES / "tables"
SALT = ("Na4 Cl4", 179.406)


def read_one(name: str) -> Reading:
    (entry,) = read(CASES / name)
    return entry


READ = {
    "oh_labels/brucite_ok.cif": ("Mg1 H2 O2", 40.747),
    "wat_labels/toy_hydrate_with_H.cif": ("Ca1 H2 Cl2 O1", 216.0),
    "cif_dots/nacl_ok.cif": SALT,
    "cif_dots/nacl_occ_dot.cif": SALT,
    "cif_symmetry/hm_only.cif": SALT,
    "cif_symmetry/hall_only.cif": SALT,
    "cif_typos/cartesian.cif": SALT,
    "mixed_valence/FeO_plain.cif": ("Fe4 O4", 81.183),
    "mixed_valence/FeO_mixed.cif": ("Fe4 O4", 81.183),
    "encodings/utf16.cif": SALT,
    "poscar/zns_ok.vasp": ("Zn1 S1", 39.585),
    "poscar/zns_neg_cart.vasp": ("Zn1 S1", 39.585),
    "poscar/three_scales.vasp": ("Cs1 Cl1", 69.935),
    "extxyz/plain.xyz": ("Cs1 Cl1", 69.935),
    "extxyz/single_quotes_pbc.xyz": ("Cs1 Cl1", 69.935),
    "extxyz/new_arrays.xyz": ("Cs1 Cl1", 69.935),
    "pbc/mos2_TTT.json": ("Mo1 S2", 57.283),
    "tables/one.cif.gz": SALT,
}


@pytest.mark.parametrize("name", READ)
def test_what_is_meant_is_read_without_a_word(name: str) -> None:
    entry = read_one(name)
    assert (entry.reason, entry.remarks) == ("", [])
    assert (entry.structure.formula, round(entry.structure.volume, 3)) == READ[name]


@pytest.mark.parametrize(
    ("name", "formula", "remark"),
    [
        ("cif_symmetry/nothing.cif", "Na1 Cl1", "no symmetry is given: P1 was assumed"),
        ("disorder/occ_0.9999.cif", "Na4 Cl4", "occupancies taken as 1: Na1 0.9999"),
        ("disorder/occ_1.02.cif", "Na4 Cl4", "occupancies taken as 1: Na1 1.02"),
        (
            "csd_duplicates/nacl_dup.cif",
            "Na4 Cl4",
            "2 listed atoms are copies of others (Na1, Cl1): merged",
        ),
        ("extxyz/slab_TTF.xyz", "C2", "not periodic along c"),
        ("pbc/mos2_TTF.xyz", "Mo1 S2", "not periodic along c"),
        ("pbc/mos2_TTF.json", "Mo1 S2", "not periodic along c"),
    ],
)
def test_what_is_harmless_is_taken_with_a_remark(name: str, formula: str, remark: str) -> None:
    entry = read_one(name)
    assert (entry.structure.formula, entry.remarks) == (formula, [remark])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("oh_labels/brucite_OH.cif", "element: OH is not an element"),
        ("wat_labels/toy_hydrate.cif", "element: Wat1 is not an element"),
        ("wat_labels/toy_hydrate.cif", "no atom is H or O, which the formula has"),
        ("cif_dots/brucite_H_dots.cif", "H1 has no coordinates (. . .)"),
        ("disorder/hydride_O1H1.cif", "disorder: several elements, each with the occupancy 1"),
        ("disorder/hydride_O1H1.cif", "(O1 1, H1 1)"),
        ("disorder/oxyhydride.cif", "disorder: a site is shared (O1 0.5, H1 0.5)"),
        ("cif_typos/underscore_loop.cif", "line 3: _loop has no value; loop_ is meant?"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(name: str, reason: str) -> None:
    entry = read_one(name)
    assert entry.content is None and reason in entry.reason


def test_several_phases_in_a_file_are_told_apart() -> None:
    """Each is a crystal of its own, unless a table names the file."""
    path = CASES / "csd_duplicates/two_phases.cif"
    found = {entry.id: entry.structure.formula for entry in read(path)}
    assert found == {f"{path}#NaCl": "Na4 Cl4", f"{path}#Cu": "Cu4"}


def test_the_same_crystal_is_the_same_in_every_format() -> None:
    salt, *others = (read_one(name).content for name in READ if READ[name] == SALT)
    for other in others:
        np.testing.assert_array_equal(salt.atomic_number, other.atomic_number)
        np.testing.assert_allclose(salt.fractional, other.fractional, atol=1e-12)
    right, negative = (read_one(f"poscar/zns_{kind}.vasp") for kind in ("ok", "neg_cart"))
    for entry in (right, negative):
        np.testing.assert_allclose(entry.structure.get_distance(0, 1), 2.3426, atol=1e-4)
    slabs = [read_one(f"pbc/mos2_TTF.{kind}").structure for kind in ("json", "xyz")]
    np.testing.assert_allclose(slabs[0].distance_matrix, slabs[1].distance_matrix, atol=1e-5)
    assert slabs[0].pbc == slabs[1].pbc == (True, True, False)


FILES = [f"structures/{name}.vasp" for name in ("LiF", "LiCl", "LiBr", "LiO", "NaF", "NaCl")]
LABELS = [1.0, 1.11, 1.22, 1.33, 1.44, 1.5]


@pytest.mark.parametrize(
    ("name", "ids", "label"),
    [
        ("semicolon.csv", FILES, "gap"),
        ("tab.csv", FILES, "gap"),
        ("header_space.csv", FILES, "gap"),
        ("UPPER.CSV", FILES, "gap"),
        ("id_first.csv", [f"mp-{i:04d}" for i in range(6)], "gap"),
        ("cif_first.csv", list("012345"), "gap"),
        ("structure_json.csv", list("012345"), "gap"),
        ("jarvis.json", [f"JVASP-{i}" for i in range(6)], "optb88vdw_bandgap"),
        ("lines.json", [f"mp-{i}" for i in range(6)], "gap"),
        ("initial_structure.json", [f"wbm-{i}" for i in range(6)], "gap"),
    ],
)
def test_tables_are_read_as_they_come(name: str, ids: list[str], label: str) -> None:
    rows = read_rows(TABLES / name)
    assert (list(rows.ids), set(rows.reasons)) == (ids, {""})
    assert rows.columns[label].tolist() == LABELS
    expected = [Structure.from_file(TABLES / file) for file in FILES]
    table = rows.take(range(6))
    assert [crystal.formula for crystal in table.structures] == [one.formula for one in expected]
    for crystal, one in zip(table.structures, expected, strict=True):
        np.testing.assert_allclose(crystal.lattice.matrix, one.lattice.matrix, atol=1e-9)


def test_every_way_to_write_a_missing_label_is_one() -> None:
    gap = read_rows(TABLES / "na_labels.csv").columns["gap"]
    np.testing.assert_array_equal(gap, [np.nan] * 5 + [1.5])
