"""Training on several properties of one table at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import load
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.report.predictions import read_predictions

from .conftest import small, small_finetune

LABELS = {"total": 40, "volume": 30}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crystals of which each has one of two labels or both."""
    crystals = read_table("bundled:dielectric")
    rows = [i for i, s in enumerate(crystals.structures) if len(s) <= 4][
        : sum(LABELS.values()) - 10
    ]
    total = crystals.column("poly_total")
    data = [
        [
            crystals.structures[row].as_dict(),
            total[row] if place < LABELS["total"] else None,
            crystals.structures[row].volume if place >= len(rows) - LABELS["volume"] else None,
        ]
        for place, row in enumerate(rows)
    ]
    content = {
        "index": [crystals.ids[row] for row in rows],
        "columns": ["structure", "total", "volume"],
        "data": data,
    }
    file = tmp_path_factory.mktemp("table") / "table.json"
    file.write_text(json.dumps(content))
    return file


def multi_property(table: Path, **training: Any) -> ConfigDict:
    config = defaults.multi_property()
    config.data.path = str(table)
    config.data.properties = ConfigDict(
        {
            "total": {"target": "total", "unit": "1", "log": True},
            "volume": {"target": "volume", "unit": "A^3", "log": False},
        }
    )
    config = small(config, **training)
    config.data.update(n_train=36, n_validation=12, n_test=12)
    return config


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    workdir = tmp_path_factory.mktemp("trained")
    config = multi_property(table, property_temperature=2.0)
    result = run(config, workdir)
    assert result is not None
    return result, workdir


def test_each_property_is_tested_in_its_unit(trained: tuple[dict[str, Any], Path]) -> None:
    result, workdir = trained
    assert [(p["property"], p["unit"], p["log"]) for p in result["properties"]] == [
        ("total", "1", True),
        ("volume", "A^3", False),
    ]
    ratios = {}
    for about in result["properties"]:
        name = about["property"]
        assert sum(about["labels"].values()) == LABELS[name]
        rows = read_predictions(workdir / f"predictions_{name}.csv")
        assert len(rows) == 60 and {row.unit for row in rows} == {about["unit"]}
        tested = [row for row in rows if row.split == "test" and not np.isnan(row.target)]
        assert len(tested) == about["labels"]["test"] > 0
        error = np.mean([abs(row.prediction - row.target) for row in tested])
        assert error == pytest.approx(result[f"test_mae_{name}"])
        median = np.median([r.target for r in rows if r.split == "train" and r.target == r.target])
        constant = np.mean([abs(median - row.target) for row in tested])
        assert constant == pytest.approx(result[f"constant_test_mae_{name}"])
        ratios[name] = error / constant
        assert (workdir / f"parity_{name}.png").stat().st_size > 0
    assert result["test_relative_mae"] == pytest.approx(np.mean(list(ratios.values())))


def test_the_stated_combination_chooses_the_checkpoint(
    trained: tuple[dict[str, Any], Path],
) -> None:
    result, workdir = trained
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    best = min(record["validation_relative_mae"] for record in records)
    assert result["validation_relative_mae"] == pytest.approx(best, rel=1e-5)
    for name in LABELS:
        assert all(record[f"validation_mae_{name}"] > 0 for record in records)


def test_a_new_property_gets_a_head_like_the_others(
    trained: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, workdir = trained
    source, before, *_ = load(workdir)
    assert list(source.heads) == list(source.transforms) == ["total", "volume"]
    assert run(small_finetune(workdir), tmp_path) is not None
    model, *_ = load(tmp_path)
    assert model.heads == {"eij_max": source.heads["total"]}
    fates = json.loads((tmp_path / "transfer.json").read_text())
    copied = [fate for fate in fates if "trunk" in json.dumps(fate)]
    assert copied and before["params"]["trunk"]


@pytest.mark.slow
def test_seeds_of_several_properties_are_summed_up(table: Path, tmp_path: Path) -> None:
    config = multi_property(table)
    config.population = 2
    result = run(config, tmp_path)
    assert result is not None
    for name in ("test_mae_total", "test_mae_volume", "test_relative_mae"):
        values = result[f"{name}_by_seed"]
        assert len(values) == 2 and result[name] == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": {}}, "properties is empty"),
        ({"properties": {"gap": {"target": "gap", "unit": " ", "log": False}}}, "gap.unit is not"),
        ({"properties": {"gap": {"target": "gap", "unit": "eV", "log": False}}}, "'gap' does not"),
        ({"split": "s.json"}, "property volume: no crystal of the training part has a label"),
    ],
)
def test_what_is_wrong_with_the_properties_is_told(
    table: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = multi_property(table)
    config.data.update(max_sites=0, n_train=0, n_validation=0, n_test=0)
    ids = json.loads(table.read_text())["index"]
    parts = {"train": ids[:10], "validation": ids[20:30], "test": ids[50:]}
    (tmp_path / "s.json").write_text(json.dumps(parts))
    for name, value in change.items():
        config.data[name] = ConfigDict(value) if name == "properties" else str(tmp_path / value)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "run")


@pytest.mark.parametrize("experiment", ["finetune", "evaluate"])
def test_one_property_at_a_time_is_tuned_or_tested(
    table: Path, tmp_path: Path, experiment: str
) -> None:
    config = small_finetune(tmp_path / "source")
    config.data = multi_property(table).data
    if experiment == "evaluate":
        like = defaults.evaluate()
        for name in set(config) - set(like):
            del config[name]
        for name in set(config.data) - set(like.data) - {"properties"}:
            del config.data[name]
    config.experiment = experiment
    with pytest.raises(UserError, match=f"{experiment}.*has total, volume; give"):
        run(config, tmp_path / "run")
