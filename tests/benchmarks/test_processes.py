"""Programs that take turns, here a few lines of Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import processes
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

COUNTING = """
from benchmarks.processes import serve
count = iter(range(10))
serve({"size": 5}, lambda: {"turn": next(count)})
"""


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_program_says_what_it_is_and_works_when_told_to():
    with processes.start("It", program(COUNTING), os.environ) as process:
        assert [process.turn()["turn"] for _ in range(3)] == [0, 1, 2]
        assert process.about == {"size": 5}


def test_the_peak_of_memory_is_that_of_the_program_alone():
    greedy = program("data = bytearray(300_000_000); del data\n" + COUNTING)
    peaks = []
    for command in (program(COUNTING), greedy):
        with processes.start("It", command, os.environ) as process:
            process.turn()
            peaks.append(process.peak_bytes())
    assert peaks[1] - peaks[0] == pytest.approx(3e8, rel=0.2)


@pytest.mark.parametrize("text", ["raise SystemExit('no')", "print('{}', flush=True)"])
def test_a_program_that_stops_is_reported(text):
    with pytest.raises(UserError, match="It has stopped"):
        with processes.start("It", program(text), os.environ) as process:
            process.turn()


def test_a_program_that_is_not_there_is_reported():
    with pytest.raises(UserError, match="Cannot start It .nowhere"):
        with processes.start("It", ["nowhere"], os.environ):
            pass


def test_the_peer_gets_our_sizes_and_an_allocator_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "peer.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps({'arguments': sys.argv[1:], 'environment': dict(os.environ)}))\n"
    )
    monkeypatch.setattr(processes, "_PEER", tmp_path / "peer.py")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    trunk = {
        **{"width": 1, "embedding_width": 2, "bond_bins": 3, "angle_bins": 4},
        **{"alignn_layers": 5, "gcn_layers": 6},
    }
    with processes.start_peer(sys.executable, Path("crystals"), trunk, {"task": "x"}) as peer:
        crystals, widths, job = peer.about["arguments"]
        environment = peer.about["environment"]
    assert (crystals, job) == ("crystals", '{"task": "x"}')
    assert '"hidden_features": 1' in widths and '"gcn_layers": 6' in widths
    assert "GLIBC_TUNABLES" not in environment and environment["MALLOC_MMAP_MAX_"] == "0"


def test_crystals_are_read_as_they_were_written(tmp_path):
    crystals = list(read_table("bundled:dielectric").structures[:3])
    processes.write_crystals(tmp_path / "crystals.json", crystals)
    for crystal, read in zip(
        crystals, processes.read_crystals(tmp_path / "crystals.json"), strict=True
    ):
        assert read.species == crystal.species
        np.testing.assert_array_equal(read.lattice.matrix, crystal.lattice.matrix)
        np.testing.assert_array_equal(read.frac_coords, crystal.frac_coords)
