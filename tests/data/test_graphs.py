"""Graphs from a store: built once, by several processes, and never those of another crystal."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs
from jaxmat.data import graphs as graphs_module
from jaxmat.data import store as store_module
from jaxmat.data.contents import Contents
from jaxmat.data.graph_worker import Failure, Job
from jaxmat.data.graphs import stored_graphs
from jaxmat.data.store import append, open_store, store_path
from jaxmat.data.tables import Table, read_table
from jaxmat.errors import UserError

SETTINGS = GraphSettings()
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table("bundled:dielectric").take(range(30))


@pytest.fixture
def small_jobs(monkeypatch) -> None:
    monkeypatch.setattr(graphs_module, "_JOB_SITES", 12)
    monkeypatch.setattr(graphs_module, "_WORTH_WORKERS", 3)


@pytest.fixture
def built(monkeypatch) -> list[int]:
    """How many crystals each job built in this process held."""
    counts: list[int] = []
    build_into = graphs_module.build_into

    def counting(path, settings, job):
        counts.append(len(job.keys))
        return build_into(path, settings, job)

    monkeypatch.setattr(graphs_module, "build_into", counting)
    return counts


def assert_graphs_of(found: Sequence[CrystalGraph], structures, settings=SETTINGS) -> None:
    for graph, expected in zip(found, build_graphs(structures, settings), strict=True):
        for name, left, right in zip(CrystalGraph._fields, graph, expected, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)


def test_graphs_are_built_once_and_found_in_any_order(tmp_path, built, table):
    first = table.take(range(20))
    assert_graphs_of(stored_graphs(first.ids, first.contents, SETTINGS, tmp_path), first.structures)
    assert sum(built) == 20
    # Other ids, another order, a repeated crystal, some new ones.
    other = table.take([25, 3, 19, 3, 29])
    found = stored_graphs(list("abcde"), other.contents, SETTINGS, tmp_path)
    assert_graphs_of(found, other.structures)
    assert sum(built) == 22
    assert [len(graph.angle_cosine) for graph in found] == found.sizes[:, 2].tolist()


def test_a_stale_graph_is_never_used(tmp_path, built, table):
    structures = list(table.structures[:3])
    stored_graphs(table.ids, Contents.of(structures), SETTINGS, tmp_path)
    moved = [crystal.copy().translate_sites([0], [1e-9, 0, 0]) for crystal in structures]
    contents = Contents.of(moved)
    assert_graphs_of(stored_graphs(table.ids, contents, SETTINGS, tmp_path), moved)
    other = GraphSettings(max_neighbors=8)
    assert_graphs_of(stored_graphs(table.ids, contents, other, tmp_path), moved, other)
    assert built == [3, 3, 3]


def test_a_damaged_graph_is_built_anew(tmp_path, built, table, caplog):
    some = table.take(range(4))
    stored_graphs(some.ids, some.contents, SETTINGS, tmp_path)
    file = store_path(tmp_path, SETTINGS) / "graphs.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    for _ in range(2):
        assert_graphs_of(
            stored_graphs(some.ids, some.contents, SETTINGS, tmp_path), some.structures
        )
    assert built == [4, 1]
    assert caplog.text.count("Damaged, and built anew: 1 stored graph") == 1


def test_a_cache_that_cannot_be_written_is_passed_over(tmp_path, table, caplog):
    some = table.take(range(3))
    (tmp_path / "file").touch()
    graphs = stored_graphs(some.ids, some.contents, SETTINGS, tmp_path / "file")
    assert_graphs_of(graphs, some.structures)
    assert "config.data.graph_store" in caplog.text and "XDG_CACHE_HOME" in caplog.text


def test_a_cache_that_cannot_be_read_is_passed_over(tmp_path, table, monkeypatch, caplog):
    some, map_file = table.take(range(3)), store_module._map
    stored_graphs(some.ids, some.contents, SETTINGS, tmp_path)

    def refusing(file: Path, dtype: np.dtype) -> np.ndarray:
        if file.is_relative_to(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
        return map_file(file, dtype)

    monkeypatch.setattr(store_module, "_map", refusing)
    graphs = stored_graphs(some.ids, some.contents, SETTINGS, tmp_path)
    assert_graphs_of(graphs, some.structures)
    assert "cannot be read: permission denied" in caplog.text and "XDG_CACHE_HOME" in caplog.text


def test_no_crystals_have_no_graphs(tmp_path):
    assert len(stored_graphs([], Contents.of([]), SETTINGS, tmp_path)) == 0


def test_workers_build_what_is_built_here(tmp_path, small_jobs, built, table, caplog):
    caplog.set_level(logging.INFO)
    found = stored_graphs(table.ids, table.contents, SETTINGS, tmp_path, workers=2)
    assert built == []
    assert_graphs_of(found, table.structures)
    assert "30 graphs built in" in caplog.text


def test_blocks_are_small_and_leave_none_out(monkeypatch, table):
    monkeypatch.setattr(graphs_module, "_JOB_SITES", 9)
    all_sites = table.contents.sites
    blocks = graphs_module._blocks(all_sites)
    assert [number for block in blocks for number in block] == list(range(len(all_sites)))
    sites = [all_sites[block] for block in blocks]
    assert all(len(one) == 1 or one.sum() <= 9 for one in sites)
    assert all(one.sum() + other[0] > 9 for one, other in zip(sites, sites[1:], strict=False))
    assert {len(one) == 1 for one in sites} == {True, False}


@pytest.mark.parametrize("damaged", [False, True])
def test_what_another_process_builds_meanwhile_is_not_built_again(
    tmp_path, small_jobs, monkeypatch, table, caplog, damaged
):
    """Jobs of an array start together; each built all graphs, and the store kept all of them."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(graphs_module, "_SECONDS_BETWEEN_LOOKS", -1.0)
    path, keys = store_path(tmp_path, SETTINGS), table.contents.keys()
    if damaged:
        append(path, SETTINGS, keys[:20], build_graphs(table.contents[:20], SETTINGS))
        file = path / "graphs.bin"
        file.write_bytes(bytes(byte ^ 4 for byte in file.read_bytes()))
    build_into, others = graphs_module.build_into, []

    def with_another(path, settings, job):
        failures = build_into(path, settings, job)
        if not others:
            others.extend(key for key in keys[5:] if key not in job.keys)
            rows = np.flatnonzero(np.isin(keys, others))
            build_into(path, settings, Job(keys[rows], table.contents.take(rows)))
        return failures

    monkeypatch.setattr(graphs_module, "build_into", with_another)
    found = stored_graphs(table.ids, table.contents, SETTINGS, tmp_path, workers=1)
    assert_graphs_of(found, table.structures)
    assert len(open_store(path)) == 30 + 20 * damaged
    assert f"({len(others)} by other processes)" in caplog.text


def test_crystals_without_graph_are_reported_together(tmp_path, small_jobs, monkeypatch, table):
    build_into = graphs_module.build_into

    def refusing(path, settings, job):
        """The last of each job."""
        kept = job._replace(keys=job.keys[:-1], contents=job.contents[:-1])
        build_into(path, settings, kept)
        return [Failure(len(kept.keys), "too lonely")]

    monkeypatch.setattr(graphs_module, "build_into", refusing)
    with pytest.raises(UserError) as error:
        stored_graphs(table.ids, table.contents, SETTINGS, tmp_path, workers=1)
    lines = str(error.value).splitlines()
    refused = len(table.ids) - len(open_store(store_path(tmp_path, SETTINGS)))
    assert refused > 2
    assert lines[0].startswith(f"{refused} of 30 crystals have no graph")
    assert f"  {table.ids[-1]}: too lonely" in lines
    monkeypatch.undo()
    assert len(stored_graphs(table.ids, table.contents, SETTINGS, tmp_path)) == 30


def test_a_build_that_is_killed_goes_on(tmp_path, built):
    script = f"""
import sys
from pathlib import Path
from types import SimpleNamespace
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data import graphs
from jaxmat.data.tables import read_table
graphs._JOB_SITES, graphs._WORTH_WORKERS = 10, 1
table = read_table("bundled:dielectric").take(range(200))
graphs.stored_graphs(table.ids, table.contents, GraphSettings(), Path({str(tmp_path)!r}), 2)
"""
    index = store_path(tmp_path, SETTINGS) / "index.bin"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        while process.poll() is None and not (index.exists() and index.stat().st_size):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    table = read_table("bundled:dielectric").take(range(200))
    found = stored_graphs(table.ids, table.contents, SETTINGS, tmp_path)
    assert_graphs_of(found, table.structures)
    assert 0 < sum(built) < len(table.ids)


def test_a_log_line_tells_how_long_it_takes(monkeypatch, caplog):
    monkeypatch.setattr(graphs_module, "_SECONDS_BETWEEN_LOG_LINES", 0.0)
    caplog.set_level(logging.INFO)

    def results() -> Iterator[graphs_module._Result]:
        for reached in (10, 20):
            yield graphs_module._Result(SimpleNamespace(reached=reached), [])

    assert len(list(graphs_module._watch(results(), 40))) == 2
    assert [record.message[:22] for record in caplog.records] == [
        "10 of 40 graphs built,",
        "20 of 40 graphs built,",
    ]
