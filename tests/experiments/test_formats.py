"""What an earlier version has left is used, or refused by name; it is never misread."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import jaxmat
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.workdir import read_metrics
from jaxmat.report.predictions import read_predictions

RUNS = Path(__file__).parents[1] / "bundles" / "v1_runs.zip"
TABLE = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """The folder in which the earlier version worked."""
    zipfile.ZipFile(RUNS).extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stopped_config() -> ConfigDict:
    """The config of the run that was stopped; some defaults have changed since then."""
    config = defaults.variant(defaults.finetune(**TABLE), "smoke")
    config.start_from, config.training.epochs, config.data.graph_store = "pretrained", 4, "graphs"
    config.training.update(schedule="onecycle", learning_rate=1e-3, weight_decay=1e-5)
    return config


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_from_where_it_was(runs):
    stores = contents(runs / "graphs")
    steps = []
    result = run(stopped_config(), "stopped", lambda step: steps.append(step) or False)
    assert min(step for step in steps if step) >= 3
    whole = json.loads((runs / "whole.json").read_text())
    for name in ("test_mae", "validation_mae", "test_r2"):
        assert result[name] == pytest.approx(whole[name], rel=1e-4)
    assert [record["step"] for record in read_metrics(runs / "stopped")] == [2, 4, 6, 8]
    assert json.loads((runs / "stopped/config.json").read_text())["start_from"] == "pretrained"
    # A store of another version lies in another folder.
    assert stores.items() <= contents(runs / "graphs").items()


def test_a_finished_run_is_read_and_predicts_the_same(runs):
    model = jaxmat.load("pretrained")
    assert (
        model.metrics == json.loads((runs / "pretrained/model/config.json").read_text())["metrics"]
    )
    rows = {row.id: row for row in read_predictions("pretrained/predictions.csv")}
    table = read_table("bundled:dielectric")
    structures = dict(zip(table.ids, table.structures, strict=True))
    chosen = [structures[id] for id in rows]
    found = model.predict(chosen)
    there = [(old, new) for old, new in zip(rows.values(), found, strict=True) if not new.reason]
    assert len(there) > 40  # in others are elements that no training crystal held
    for old, new in there:
        assert new.prediction == pytest.approx(old.prediction, rel=1e-6)
    shutil.rmtree("pretrained/model")
    from_checkpoint = jaxmat.load("pretrained").predict(chosen)
    for new, again in zip(found, from_checkpoint, strict=True):
        assert new.reason or again.prediction == pytest.approx(new.prediction, rel=1e-6)


def test_what_has_changed_is_refused_by_name(runs):
    file = runs / "stopped" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"init_from": "elsewhere"}))
    changed = stopped_config()
    changed.training.schedule = "warmup_cosine"
    said = "(?s)start_from: 'elsewhere' there, 'pretrained' now.*schedule: 'onecycle' there"
    with pytest.raises(UserError, match=said):
        run(changed, "stopped")
