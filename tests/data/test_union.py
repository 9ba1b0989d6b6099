"""Union tables: one row a structure however it is written, every label kept or reported."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.data import union as module
from jaxmat.data.contents import Contents
from jaxmat.data.tables import Table, read_table
from jaxmat.data.union import Conflict, Labelling, unite, write_union
from jaxmat.errors import UserError


def fcc(edge: float, *elements: str) -> Structure:
    places = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(elements)]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), list(elements), places)


NACL, KCL, COPPER = fcc(5.64, "Na", "Cl"), fcc(6.29, "K", "Cl"), fcc(3.61, "Cu")
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
ANATASE = Structure.from_spacegroup(
    "I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]
)
# Cubic, and with the atom in the middle moved off it.
PEROVSKITE, POLAR = (
    Structure(
        Lattice.tetragonal(4.0, 4.0 + z),
        ["Ba", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5 + z], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )
    for z in (0, 0.04)
)
CRYSTALS = (NACL, KCL, COPPER, RUTILE, ANATASE, PEROVSKITE, POLAR)


def labelling(*structures: Structure, labels: object = None, ids: object = None) -> Labelling:
    """A table with the ids 0, 1, ..., these material ids, and labels, else 1, 2, ..."""
    columns = {} if ids is None else {"material_id": np.array(ids, dtype=object)}
    names = tuple(str(row) for row in range(len(structures)))
    values = np.arange(1.0, len(structures) + 1) if labels is None else np.array(labels, float)
    return Labelling(Table("t", names, Contents.of(structures), columns), values)


def strained(structure: Structure, strain: float) -> Structure:
    return structure.copy().apply_strain(strain, inplace=False)


def rewritten(structure: Structure, seed: int) -> Structure:
    """The same crystal in a turned supercell with its atoms in another order."""
    rng = np.random.default_rng(seed)
    scale = np.ones(3, int)
    scale[rng.integers(3)] = rng.integers(1, 3)
    cell = structure.make_supercell(scale, in_place=False)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(cell))
    places = cell.frac_coords + rng.uniform(-2, 2, 3) + rng.normal(0, 1e-5, (len(cell), 3))
    return Structure(
        Lattice(cell.lattice.matrix @ turn), [cell[i].specie for i in order], places[order]
    )


def groups(tables: dict[str, Labelling]) -> set[frozenset[str]]:
    return {frozenset(cell.split(",")) for cell in unite(tables).table.columns["sources"]}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), chosen=st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_a_crystal_is_one_row_however_and_wherever_it_is_written(seed, chosen):
    rng = np.random.default_rng(seed)
    rows = [(number, int(rng.integers(2))) for number in chosen]
    tables, expected = {}, {number: set() for number in chosen}
    for table, key in enumerate("ab"):
        mine = [number for number, there in rows if there == table]
        for row, number in enumerate(mine):
            expected[number].add(f"{key}:{row}")
        crystals = [rewritten(CRYSTALS[number], seed + row) for row, number in enumerate(mine)]
        tables[key] = labelling(*crystals)
    assert groups(tables) == {frozenset(names) for names in expected.values()}


@settings(max_examples=10)
@given(order=st.permutations(range(8)))
def test_the_order_of_rows_does_not_matter(order):
    # Each is near the next, the ends are too far apart for the matcher.
    chain = [strained(NACL, 0.009 * step) for step in range(4)]
    crystals = [*chain, RUTILE, ANATASE, PEROVSKITE, POLAR]
    name = {f"a:{row}": number for row, number in enumerate(order)}
    found = groups({"a": labelling(*(crystals[number] for number in order))})
    numbers = {frozenset(name[source] for source in group) for group in found}
    assert numbers == {frozenset(range(4)), *(frozenset([n]) for n in range(4, 8))}


def test_the_ends_of_the_chain_are_not_one_by_themselves():
    assert len(groups({"a": labelling(NACL, strained(NACL, 0.009))})) == 1
    assert len(groups({"a": labelling(NACL, strained(NACL, 0.027))})) == 2


def test_labels_stand_under_their_property_and_blanks_are_nan():
    union = unite({"dc": labelling(NACL, KCL), "gv": labelling(COPPER, NACL, labels=[7, 8])})
    table = union.table
    assert table.ids == ("dc:0", "dc:1", "gv:0")
    assert list(table.structures) == [NACL, KCL, COPPER]
    assert list(table.columns) == ["dc", "gv", "sources"]
    np.testing.assert_array_equal(table.column("dc"), [1, 2, np.nan])
    np.testing.assert_array_equal(table.column("gv"), [8, np.nan, 7])
    assert table.columns["sources"].tolist() == ["dc:0,gv:1", "dc:1", "gv:0"]
    assert union.conflicts == [] and union.mixed_ids == []


def test_one_row_alone():
    table = unite({"dc": labelling(NACL)}).table
    assert table.ids == ("dc:0",) and table.column("dc").tolist() == [1.0]


def test_the_first_label_is_kept_and_others_are_reported():
    union = unite(
        {
            "dc": labelling(NACL, NACL, KCL, NACL, labels=[2.0, 2.0 + 1e-9, 5.0, 3.0]),
            "gv": labelling(NACL, labels=[4.0]),
        }
    )
    assert union.table.column("dc").tolist() == [2.0, 5.0]
    assert union.conflicts == [Conflict("dc", "dc:0", "dc:0", "dc:3", 2.0, 3.0)]


def test_equal_material_ids_are_one_structure_where_the_composition_is():
    stretched = strained(NACL, 0.1)
    tables = {"a": labelling(NACL, KCL, ids=["mp-1", "mp-2"])}
    assert len(groups(tables | {"b": labelling(stretched)})) == 3
    assert groups(tables | {"b": labelling(stretched, COPPER, ids=["mp-1", ""])}) == {
        frozenset(["a:0", "b:0"]),
        frozenset(["a:1"]),
        frozenset(["b:1"]),
    }


def test_a_material_id_of_several_compositions_is_reported_and_not_followed():
    union = unite(
        {"a": labelling(NACL, KCL, ids=["mp-1", "mp-2"]), "b": labelling(KCL, ids=["mp-1"])}
    )
    assert union.mixed_ids == ["mp-1: NaCl (a:0), KCl (b:0)"]
    assert union.table.columns["sources"].tolist() == ["a:0", "a:1,b:0"]
    assert union.table.ids == ("mp-1", "mp-2")


@pytest.mark.parametrize("blank", ["", " ", "None", "nan"])
def test_blank_material_ids_are_no_identity(blank):
    union = unite({"a": labelling(NACL, strained(NACL, 0.1), ids=[blank, blank])})
    assert union.table.ids == ("a:0", "a:1")


def test_numbers_are_no_identity():
    table = labelling(NACL, strained(NACL, 0.1))
    table.table.columns["material_id"] = np.array([1.0, 1.0])
    assert unite({"a": table}).table.ids == ("a:0", "a:1")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["mp-1", "mp-2"], ("mp-1", "mp-2")),
        (["mp-1", "mp-1"], ("a:0", "a:1")),
        (["a:1", ""], ("a:0", "a:1")),
    ],
)
def test_ids_are_unique(ids, expected):
    assert unite({"a": labelling(NACL, KCL, ids=ids)}).table.ids == expected


def test_the_material_id_may_come_from_a_later_row():
    union = unite({"a": labelling(NACL), "b": labelling(NACL, ids=["mp-1"])})
    assert union.table.ids == ("mp-1",) and union.table.columns["sources"][0] == "a:0,b:0"


def test_oxidation_states_and_spins_make_no_difference():
    charged = NACL.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    spinning = NACL.copy(site_properties={"magmom": [1.0, -1.0] * 4})
    assert len(groups({"a": labelling(NACL, charged, spinning)})) == 1


def test_where_symmetry_is_not_known_the_matcher_alone_decides(monkeypatch):
    def fails(*_: object) -> None:
        raise module.SymmetryUndeterminedError

    monkeypatch.setattr(module, "SpacegroupAnalyzer", fails)
    crystals = labelling(RUTILE, ANATASE, rewritten(RUTILE, 0))
    assert groups({"a": crystals}) == {frozenset(["a:0", "a:2"]), frozenset(["a:1"])}


def test_symmetry_is_asked_for_only_where_it_may_matter(monkeypatch):
    monkeypatch.setattr(module, "SpacegroupAnalyzer", None)
    same_id = labelling(NACL, NACL, KCL, strained(KCL, 0.1), ids=["mp-1", "mp-1", "", ""])
    assert len(groups({"a": same_id})) == 3


@pytest.mark.parametrize("key", ["", "1", "a,b", "a:b", "structure", "sources", "material_id"])
def test_names_that_would_be_ambiguous_are_refused(key):
    with pytest.raises(UserError, match="cannot hold"):
        unite({key: labelling(NACL)})


def test_ids_with_commas_are_refused():
    table = Table("t", ("x,y",), Contents.of([NACL]), {})
    with pytest.raises(UserError, match="table a: id 'x,y' has a comma"):
        unite({"a": Labelling(table, np.ones(1))})


def test_the_file_is_the_table_exactly(tmp_path: Path):
    labels = [0.1 + 0.2, -1e-300]
    tables = {"dc": labelling(RUTILE, COPPER, labels=labels), "gv": labelling(rewritten(NACL, 1))}
    union = unite(tables)
    path = tmp_path / "union.json.gz"
    write_union(path, union)
    table = read_table(path)
    assert table.ids == union.table.ids
    assert table.column("dc").tolist()[:2] == labels and np.isnan(table.column("dc")[2])
    assert table.columns["sources"].tolist() == ["dc:0", "dc:1", "gv:0"]
    for read, written in zip(table.structures, union.table.structures, strict=True):
        np.testing.assert_array_equal(read.lattice.matrix, written.lattice.matrix)
        np.testing.assert_array_equal(read.frac_coords, written.frac_coords)
        assert read.species == written.species
    assert [file.name for file in tmp_path.iterdir()] == ["union.json.gz"]


def test_equal_unions_give_equal_bytes(tmp_path: Path):
    union = unite({"dc": labelling(NACL)})
    for name in ("a.json.gz", "b.json.gz"):
        write_union(tmp_path / name, union)
    data = (tmp_path / "a.json.gz").read_bytes()
    assert data == (tmp_path / "b.json.gz").read_bytes()
    assert data[4:8] == bytes(4) and b"NaN" not in gzip.decompress(data)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch):
    path = tmp_path / "union.json.gz"
    write_union(path, unite({"dc": labelling(NACL)}))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_union(path, unite({"dc": labelling(KCL)}))
    assert path.read_bytes() == before
