"""Graphs in files: what goes in comes out, and what a kill or an accident leaves does no harm."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs, join
from jaxmat.data import store as store_module
from jaxmat.data.store import GraphStore, StoreError, append, open_store, store_path
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

SETTINGS = GraphSettings()


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return list(read_table("bundled:dielectric").structures[:8])


@pytest.fixture(scope="module")
def graphs(structures) -> list[CrystalGraph]:
    return list(build_graphs(structures, SETTINGS))


@pytest.fixture(scope="module")
def keys(structures) -> np.ndarray:
    return np.array([Content.of(structure).key() for structure in structures], "S16")


def assert_same(one: CrystalGraph, other: CrystalGraph) -> None:
    for name, left, right in zip(CrystalGraph._fields, one, other, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert left.dtype == right.dtype, name


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped on Linux alone")
def test_of_a_large_store_little_is_held_in_memory(tmp_path, graphs, monkeypatch):
    monkeypatch.setattr(store_module, "_HELD", 2**18)
    monkeypatch.setattr(store_module, "_AT_ONCE", 8)
    many = 600 * graphs
    append(tmp_path, SETTINGS, np.array([f"{i:016}" for i in range(len(many))], "S16"), many)
    store = open_store(tmp_path)
    assert (tmp_path / "graphs.bin").stat().st_size > 2**22

    def held() -> int:
        """Bytes of the file in this process."""
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        found = 0
        for line in lines:
            if line.endswith(str(tmp_path / "graphs.bin")):
                rest = dict(field.split(":") for field in itertools.islice(lines, 4))
                found += 1024 * int(rest["Rss"].split()[0])
        return found

    def all_one_by_one() -> None:
        for graph in store:
            graph.bond_length.sum()

    for read in (store.intact, store.descriptors, store.elements, all_one_by_one):
        read()
        assert held() < 2**20, read
    first = store[0]
    for start in range(0, len(store), 8):
        store[start : start + 8].joined()
    assert held() < 2**20
    assert_same(first, many[0])  # a view of pages that were given back is read again


def test_what_goes_in_comes_out(tmp_path, keys, graphs):
    assert len(open_store(tmp_path)) == 0
    append(tmp_path, SETTINGS, keys[:3], graphs[:3])
    append(tmp_path, SETTINGS, keys[3:], graphs[3:])
    store = open_store(tmp_path)
    for found, graph in zip(store, graphs, strict=True):
        assert_same(found, graph)
    assert store.sizes.tolist() == [
        [len(graph.atomic_number), len(graph.bond_length), len(graph.angle_cosine)]
        for graph in graphs
    ]


def test_some_of_the_graphs(tmp_path, keys, graphs):
    append(tmp_path, SETTINGS, keys, graphs)
    store = open_store(tmp_path)
    assert_same(store[-1], graphs[-1])
    assert_same(store[2:5][1], graphs[3])
    some = store.take(np.array([5, 1, 5]))
    assert len(some) == 3
    assert_same(some[2], graphs[5])
    np.testing.assert_array_equal(some.sizes, store.sizes[[5, 1, 5]])
    with pytest.raises(IndexError):
        some[3]


def assert_joined(graphs: GraphStore) -> None:
    found, expected = graphs.joined(), join(list(graphs))
    assert_same(found.rows, expected.rows)
    np.testing.assert_array_equal(found.sizes, expected.sizes)


def test_joined_graphs_are_those_read_one_by_one(tmp_path, keys, graphs):
    """Repeated ones, in any order; with whole numbers of one width, of the other, and of both."""
    wide = graphs[0]._replace(site_count=np.full_like(graphs[0].site_count, 2**16))
    append(tmp_path, SETTINGS, keys, [wide, *graphs[1:]])
    store = open_store(tmp_path)
    for indices in ([5, 1, 5, 7], [0], [3, 0, 4], []):
        assert_joined(store.take(np.array(indices, int)))
    assert_joined(store[1:])
    with (tmp_path / "graphs.bin").open("ab") as file:
        file.write(b"part")  # of a record, by a process that was killed
    assert_joined(open_store(tmp_path)[1:])


def test_crystals_are_found_by_their_keys(tmp_path, keys, graphs):
    assert open_store(tmp_path).find(keys).tolist() == [-1] * len(keys)
    append(tmp_path, SETTINGS, keys[::2], graphs[::2])
    assert open_store(tmp_path).find(keys).tolist() == [0, -1, 1, -1, 2, -1, 3, -1]


@pytest.mark.parametrize("greatest", [2**16 - 1, 2**16])
def test_whole_numbers_of_any_size(tmp_path, greatest, keys, graphs):
    graph = graphs[0]._replace(site_count=np.full_like(graphs[0].site_count, greatest))
    append(tmp_path, SETTINGS, keys[:2], [graph, graphs[1]])
    store = open_store(tmp_path)
    assert_same(store[0], graph)
    assert_same(store[1], graphs[1])


def test_a_crystal_without_bonds(tmp_path, keys):
    none, no_length = np.empty(0, np.int32), np.empty(0)
    one = np.ones(1, np.int32)
    bare = CrystalGraph(one, one, none, none, no_length, none, none, none, no_length, none)
    append(tmp_path, SETTINGS, keys[:1], [bare])
    assert_same(open_store(tmp_path)[0], bare)
    assert_joined(open_store(tmp_path))


@pytest.fixture(scope="module")
def crystal() -> Structure:
    return Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_the_key_depends_on_all_that_the_graph_depends_on(crystal):
    key = Content.of(crystal).key()
    again = Structure(crystal.lattice, ["Na+", "Cl-"], crystal.frac_coords, labels=["a", "b"])
    assert Content.of(again).key() == key
    moved = crystal.frac_coords.copy()
    moved[1, 2] = np.nextafter(moved[1, 2], 1)
    slab = Lattice(crystal.lattice.matrix, pbc=(True, True, False))
    others = [
        Structure(crystal.lattice, ["Na", "Br"], crystal.frac_coords),
        Structure(crystal.lattice, ["Na", "Cl"], moved),
        Structure(Lattice.cubic(np.nextafter(4, 5)), ["Na", "Cl"], crystal.frac_coords),
        Structure(slab, ["Na", "Cl"], crystal.frac_coords),
    ]
    assert len({key, *(Content.of(other).key() for other in others)}) == 5


def test_a_crystal_is_its_content(structures, graphs):
    for structure, graph in zip(structures, graphs, strict=True):
        again = Content.of(structure).structure()
        assert Content.of(again).key() == Content.of(structure).key()
        assert_same(next(build_graphs([again], SETTINGS)), graph)


def test_each_setting_and_version_has_a_folder(tmp_path, monkeypatch):
    settings = (SETTINGS, GraphSettings(compress=False), GraphSettings(tolerance=2e-3))
    places = {store_path(tmp_path, one) for one in settings}
    assert store_path(tmp_path, GraphSettings()) in places
    monkeypatch.setattr(store_module, "VERSION", store_module.VERSION + 1)
    assert len(places | {store_path(tmp_path, SETTINGS)}) == 4


def test_graphs_that_have_changed_need_a_new_version(graphs):
    """Stores hold graphs of older code: where this fails, raise VERSION, then renew the digest."""
    digest = hashlib.sha256()
    for graph in graphs:
        for rows in graph:
            digest.update(np.rint(rows * 1e5).astype(np.int64).tobytes())
    assert (store_module.VERSION, digest.hexdigest()[:16]) == (3, "2f6ea0f95de78420")


@given(kept=st.integers(0, 3), graph_bytes=st.integers(0, 40_000), index_bytes=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_process_killed_while_it_writes_does_no_harm(
    tmp_path_factory, keys, graphs, kept, graph_bytes, index_bytes
):
    """Records are written first: the index is only longer where they are complete."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "cut"))
    append(whole, SETTINGS, keys[:kept], graphs[:kept])
    before = {file.name: file.stat().st_size for file in whole.glob("*.bin")}
    append(whole, SETTINGS, keys[kept:6], graphs[kept:6])
    records, index = ((whole / name).read_bytes() for name in ("graphs.bin", "index.bin"))
    records = records[: before["graphs.bin"] + graph_bytes]
    complete = len(records) == (whole / "graphs.bin").stat().st_size
    index = index[: before["index.bin"] + complete * index_bytes]
    (folder / "graphs.bin").write_bytes(records)
    (folder / "index.bin").write_bytes(index)

    survivors = len(index) // 48
    assert len(open_store(folder)) == survivors >= kept
    append(folder, SETTINGS, keys[survivors:], graphs[survivors:])
    for found, graph in zip(open_store(folder), graphs, strict=True):
        assert_same(found, graph)


def test_many_may_write_at_once(tmp_path, keys, graphs):
    with ThreadPoolExecutor(4) as threads:
        for i in range(40):
            one = slice(i % len(keys), i % len(keys) + 1)
            threads.submit(append, tmp_path, SETTINGS, keys[one], graphs[one])
    store = open_store(tmp_path)
    assert len(store) == 40
    for row, graph in zip(store.find(keys), graphs, strict=True):
        assert_same(store[row], graph)


def test_an_open_store_stays_as_it_is_while_it_grows(tmp_path, keys, graphs):
    append(tmp_path, SETTINGS, keys[:2], graphs[:2])
    store = open_store(tmp_path)
    append(tmp_path, SETTINGS, keys[2:], graphs[2:])
    assert len(store) == 2
    assert_same(store[1], graphs[1])


def flip(file: Path, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << byte % 8
    file.write_bytes(content)


@given(place=st.floats(0, 1, exclude_max=True), file=st.sampled_from(["graphs.bin", "index.bin"]))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path_factory, keys, graphs, place, file):
    """No graph of another content is ever given; adding the lost ones mends the store."""
    path = tmp_path_factory.mktemp("store")
    append(path, SETTINGS, keys, graphs)
    flip(path / file, int(place * (path / file).stat().st_size))

    store = open_store(path)
    found = store.find(keys)
    good = [i for i, row in enumerate(found) if row >= 0 and store.take(np.array([row])).intact()]
    assert len(graphs) - 1 <= len(good) <= len(graphs)
    for i in good:
        assert_same(store[found[i]], graphs[i])
    lost = [i for i in range(len(graphs)) if i not in good]
    append(path, SETTINGS, keys[lost], [graphs[i] for i in lost])
    store = open_store(path)
    mended = store.take(store.find(keys))
    assert mended.intact().all()
    for one, other in zip(mended, graphs, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("file", ["graphs.bin", "index.bin"])
def test_what_is_cut_off_is_passed_over_and_added_again(tmp_path, keys, graphs, file):
    append(tmp_path, SETTINGS, keys, graphs)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-8])
    assert open_store(tmp_path).find(keys).tolist() == [*range(len(keys) - 1), -1]
    append(tmp_path, SETTINGS, keys[-1:], graphs[-1:])
    store = open_store(tmp_path)
    mended = store.take(store.find(keys))
    assert mended.intact().all()
    assert_same(mended[-1], graphs[-1])


def test_a_store_is_made_of_files(tmp_path):
    os.mkfifo(tmp_path / "index.bin")
    with pytest.raises(UserError, match=r"index\.bin cannot be read: it is a pipe"):
        open_store(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, keys, graphs):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written to .*file/store: "):
        append(tmp_path / "file" / "store", SETTINGS, keys, graphs)


def test_a_large_store_opens_at_once(tmp_path, keys, graphs):
    append(tmp_path, SETTINGS, keys[:1], graphs[:1])
    size = (tmp_path / "graphs.bin").stat().st_size
    rows = np.repeat(np.fromfile(tmp_path / "index.bin", store_module._ROW), 130_000)
    rows["end"] = size * (np.arange(130_000) + 1)
    rows.tofile(tmp_path / "index.bin")
    with (tmp_path / "graphs.bin").open("r+b") as file:
        file.truncate(size * 130_000)  # a hole, which takes no room
    began = time.perf_counter()
    store = open_store(tmp_path)
    assert time.perf_counter() - began < 1
    assert len(store.sizes) == 130_000
    assert_same(store[0], graphs[0])
