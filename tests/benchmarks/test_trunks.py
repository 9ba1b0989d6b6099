"""The comparison of trunks: which cells there are, what they see, and what is kept of them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import trunks
from benchmarks.published import Mark
from benchmarks.trunks import Cell, Row
from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import settle_network, settle_training
from jaxmat.experiments.study.samples import Samples
from jaxmat.experiments.study.tables import TableFile
from jaxmat.models.network import build_network

SETS = ["ph", "dc"]


@pytest.fixture
def samples() -> Samples:
    """A table of 40 crystals, 30 of them listed for a trial, in an order of its own."""
    lists = {
        "trials": {"1": {"20": [str(i) for i in range(29, 9, -1)]}},
        "n_train_val": {"20": [18, 2]},
    }
    ids = [str(i) for i in range(40)]
    return Samples(TableFile("dc", "dc.json", "y", "1", lists), False, ids[30:], ids[:30])


def test_every_variant_is_a_network_that_can_be_trained():
    for fields in trunks.VARIANTS.values():
        study = defaults.study("")
        study.update_from_flattened_dict(fields)
        build_network(settle_network(study).trunk, {"y": {"kind": "linear"}})
        assert settle_training(study, "training", n_train=90, n_validation=10)["epochs"]


def test_the_grid_has_each_cell_once_and_leaves_out_what_was_not_published():
    cells = list(trunks.grid("test", ["a", "b"], SETS, [100, 800], [4, 5]))
    assert len(set(cells)) == len(cells) == 2 * 2 * 2 * 2 - 2 * 2
    assert Counter(cell.variant for cell in cells[:6]) == {"a": 6}
    assert not any(cell.set == "ph" and cell.trial == 5 for cell in cells)
    development = trunks.grid("development", ["a"], SETS, [100], [5])
    assert [cell.set for cell in development] == SETS


def test_development_sees_no_test_crystal(samples):
    split = trunks.development_split(samples, 20, 1)
    assert sorted(split["test"], key=int) == [str(i) for i in range(10)]
    assert split["train"] == [str(i) for i in range(29, 11, -1)]


def test_rows_are_kept_as_they_come(tmp_path):
    file = tmp_path / "rows.csv"
    rows = [
        Row(Cell("test", "a", "dc", 100, trial), 106, 0.02 * trial, 0.03, 1000, 20.5)
        for trial in (1, 2)
    ]
    assert trunks.find_done(file) == []
    for number, row in enumerate(rows, start=1):
        trunks.add_row(file, row)
        assert trunks.find_done(file) == rows[:number]


def test_the_table_has_means_and_the_published_marks():
    cells = (Cell("test", "a", "dc", 100, trial) for trial in (1, 2))
    rows = [Row(cell, 106, 0.02 * cell.trial, 0, 1, 1) for cell in cells]
    published = Mark("", {1: 0.0595, 2: 0.0595})
    marks = {
        ("dc", 100, "published, random weights"): published,
        ("pz", 100, "published, random weights"): published,
    }
    lines = trunks.tabulate(rows, marks).splitlines()
    assert len(lines) == 4 and "dc 100" in lines[0]
    assert "0.03" in lines[2] and "±" in lines[2]
    assert "published" in lines[3] and "0.0595" in lines[3] and "pz" not in lines[0]


@pytest.mark.slow
def test_cells_are_trained_together_as_they_are_alone(tmp_path):
    """On the bundled table; few steps."""
    table = trunks.find_tables("bundled")["dielectric"]
    samples = trunks.read_samples(table, defaults.study("").data)
    samples = samples._replace(pool=samples.pool[:60], test=samples.test[:10])
    cells = [Cell("test", "cogn properties", "dc", 20, trial) for trial in (1, 2)]
    together = trunks.run_cells(cells, samples, steps_factor=0.01)
    for cell, row in zip(cells, together, strict=True):
        (alone,) = trunks.run_cells([cell], samples, steps_factor=0.01)
        assert row.cell == cell and row.crystals == 10
        assert 0 < row.mae < 1 and np.isfinite(row.validation_mae) and row.steps > 0
        assert row.mae == pytest.approx(alone.mae, rel=1e-4) and row.steps == alone.steps
        assert json.loads(json.dumps(row)) is not None
    assert together[0].mae != together[1].mae
