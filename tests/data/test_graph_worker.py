"""The process that builds graphs, from both of its ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxmat.crystals import graph as graph_module
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data import graph_worker
from jaxmat.data.graph_worker import GraphWorker, Job, build_into
from jaxmat.data.store import open_store
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

SETTINGS = GraphSettings("reference", canonical=False)


@pytest.fixture(scope="module")
def job() -> Job:
    contents = read_table("bundled:dielectric").contents[:6]
    return Job(contents.keys(), contents)


def test_what_goes_through_the_pipe_is_the_same(job):
    again = graph_worker._from_bytes(graph_worker._to_bytes(job))
    np.testing.assert_array_equal(again.keys, job.keys)
    assert again.contents.keys().tolist() == job.keys.tolist()


def test_a_process_builds_what_is_built_here(tmp_path, job):
    here, there = tmp_path / "here", tmp_path / "there"
    first, second = (Job(job.keys[part], job.contents[part]) for part in (slice(4), slice(4, 6)))
    with GraphWorker(there, SETTINGS) as worker:
        assert worker.build(first) == worker.build(second) == []
    assert build_into(here, SETTINGS, first) == build_into(here, SETTINGS, second) == []
    assert (here / "graphs.bin").read_bytes() == (there / "graphs.bin").read_bytes()
    assert (here / "index.bin").read_bytes() == (there / "index.bin").read_bytes()


def test_one_bad_crystal_costs_no_other(tmp_path, monkeypatch, job):
    sites = job.contents.sites
    refused = {sites[1]: UserError("too lonely"), sites[4]: KeyError(3)}
    find_bonds = graph_module._find_bonds

    def choosy(crystals, settings):
        for crystal in crystals:
            if (count := len(crystal.atomic_number)) in refused:
                raise refused[count]
        return find_bonds(crystals, settings)

    monkeypatch.setattr(graph_module, "_find_bonds", choosy)
    failures = build_into(tmp_path, SETTINGS, job)
    expected = [
        (number, {"UserError": "too lonely"}.get(type(reason).__name__, "KeyError: 3"))
        for number, count in enumerate(sites)
        if (reason := refused.get(count))
    ]
    assert failures == expected
    rows = open_store(tmp_path).find(job.keys)
    assert (rows < 0).nonzero()[0].tolist() == [number for number, _ in failures]
    assert 0 < len(failures) < len(job.keys)


@pytest.mark.parametrize("gone", [True, False])
def test_a_process_that_dies_is_reported(gone, tmp_path, job):
    with GraphWorker(tmp_path, SETTINGS) as worker:
        worker._process.kill()
        if gone:  # else it may still be there when it gets the job
            worker._process.wait()
        with pytest.raises(UserError, match=r"has died \(exit code -9.*run again"):
            worker.build(job)


def test_a_store_that_cannot_be_written_is_reported(tmp_path, job):
    (tmp_path / "file").touch()
    with GraphWorker(tmp_path / "file" / "store", SETTINGS) as worker:
        with pytest.raises(UserError, match="graphs cannot be written to"):
            worker.build(job)


def test_a_process_starts_without_jax():
    script = (
        "import sys, jaxmat.data.graph_worker; "
        "assert not {'jax', 'jraph', 'flax', 'matplotlib'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
