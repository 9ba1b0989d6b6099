"""The count of crystals whose prediction depends on how they are written."""

from __future__ import annotations

import numpy as np

from benchmarks import invariance
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.tables import read_table
from jaxmat.models.network import build_network


def test_how_a_cell_is_written_moves_predictions_under_the_reference_rule():
    structures = list(read_table("bundled:dielectric").structures[:4])
    trunk = {"width": 8, "embedding_width": 4, "alignn_layers": 1, "gcn_layers": 0}
    network = build_network({"kind": "alignn", **trunk}, {"x": {"kind": "linear"}})
    moved = invariance.changes(network, structures, GraphSettings(neighbor_rule="reference"))
    assert list(moved) == [rewrite.__name__ for rewrite in invariance.REWRITES]
    assert all(len(size) == len(structures) for size in moved.values())
    assert moved["reordered"].max() < invariance.TOLERANCE < moved["doubled"].max()


def test_summaries_count_crystals_and_take_the_worst_of_each():
    moved = {"rotated": np.array([0.0, 1e-3, 0.0]), "doubled": np.array([0.0, 0.0, 2e-3])}
    found = invariance.summaries(moved)
    assert [summary["fail"] for summary in found.values()] == [1, 1, 2]
    assert found["any of them"] == {"fail": 2, "median": 1e-3, "worst": 2e-3}


def test_the_table_has_a_row_for_each_rewriting():
    summary = invariance.summaries({"rotated": np.array([0.0]), "doubled": np.array([2e-3])})
    lines = invariance.make_table({"one": summary, "other": summary}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "rotated",
        "doubled",
        "any of them",
    ]
    assert lines[3].split("|")[2].strip() == "1"
