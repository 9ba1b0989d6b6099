"""The benchmark of prediction, against a peer that only pretends."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from benchmarks import prediction, processes
from jaxmat.bundles.bundle import read_bundle
from jaxmat.data.tables import read_table

JOB = {"task": "predict"}
PRETENDER = """
import json, sys
crystals = json.load(open(sys.argv[1]))
sites = sum(len(crystal["elements"]) for crystal in crystals)
print(json.dumps({"parameters": json.loads(sys.argv[2])["gcn_layers"], "version": "0"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"graphs": sites, "network": 8.0}), flush=True)
"""


@pytest.fixture
def structures() -> list[Structure]:
    return list(read_table("bundled:dielectric").structures[:6])


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    (folder / "peer.py").write_text(program)
    monkeypatch.setattr(processes, "_PEER", folder / "peer.py")


def write(folder: Path, structures: list[Structure]) -> Path:
    processes.write_crystals(folder / "crystals.json", structures)
    return folder / "crystals.json"


def test_both_predict_the_same_crystals_in_turns(tmp_path, monkeypatch, structures):
    pretend(monkeypatch, tmp_path, PRETENDER)
    bundle = read_bundle(Path(__file__).parents[1] / "bundles" / "v1")
    bundle = bundle._replace(about={**bundle.about, "elements": None})
    trunk = {**bundle.model.trunk, "gcn_layers": 5}
    with processes.start_peer(sys.executable, write(tmp_path, structures), trunk, JOB) as peer:
        result = prediction.compare(bundle, structures, peer, repetitions=2)
    ours, theirs = result["jaxmat"], result["alignn"]
    assert theirs["parameters"] == 5
    assert theirs["seconds"] == 2 * [{"graphs": sum(map(len, structures)), "network": 8.0}]
    seconds = sum(theirs["seconds"][0].values())
    assert len(ours["seconds"]) == 2
    assert result["ratio"] == pytest.approx(seconds / np.median(ours["seconds"]))
    assert theirs["structures_per_second"] == pytest.approx(len(structures) / seconds)
    assert ours["cold_seconds"] > ours["compile_seconds"] > 0
