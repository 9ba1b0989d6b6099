"""Matbench: official ids and folds, scores as defined there, files that its package reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.matbench import matbench, official_ids, score
from jaxmat.experiments.pages import write_page
from jaxmat.report.predictions import Prediction, write_predictions


def test_ids_are_those_of_matbench() -> None:
    """As in its table of validation: mb-phonons-0002 is tested in the first fold."""
    assert official_ids("matbench_phonons", 1265)[:2] == ["mb-phonons-0001", "mb-phonons-0002"]
    assert official_ids("matbench_mp_gap", 106113)[2] == "mb-mp-gap-000003"


def test_scores() -> None:
    found = score(np.array([1.0, 2.0, 0.0]), np.array([2.0, 2.0, 4.0]))
    assert found == pytest.approx(
        {"mae": 5 / 3, "rmse": np.sqrt(17 / 3), "mape": 0.5, "max_error": 4.0}
    )


def write_table(path: Path, rows: int, **change: object) -> Path:
    crystals = [Structure(Lattice.cubic(3 + i / 100), ["Si"], [[0, 0, 0]]) for i in range(rows)]
    data = [[crystal.as_dict(), 10.0 * i] for i, crystal in enumerate(crystals)]
    content = {"index": [*range(rows)], "columns": ["structure", "last phdos peak"], "data": data}
    path.write_text(json.dumps(content | change))
    return path


def test_folds_are_run_one_after_another_and_written_for_the_site(tmp_path: Path) -> None:
    config = defaults.matbench()
    config.data.path = str(write_table(tmp_path / "t.json", 12))
    seen = []

    def run(one, place: Path):
        """Predicts the label plus the number of the fold."""
        assert (one.experiment, one.data.folds, one.data.test_seed) == ("scratch", 5, 18012019)
        assert one.data.max_rejected_fraction == 0
        seen.append(one.data.fold)
        if len(seen) == 3:
            return None  # stopped
        tested = FOLDS[one.data.fold]
        place.mkdir(exist_ok=True)
        rows = [Prediction(str(i), "test", 10.0 * i, 10.0 * i + one.data.fold, "x") for i in tested]
        others = [Prediction("6" if 6 not in tested else "0", "train", 0.0, 0.0, "x")]
        write_predictions(place / "predictions.csv", [*others, *rows])
        result = {
            "property": "p",
            "unit": "1/cm",
            "log": False,
            "crystals": {},
            "test_mae": one.data.fold,
        }
        result |= {"constant_test_mae": 8.0, "interval_level": 0.9}
        (place / "result.json").write_text(json.dumps(result))
        return result

    assert matbench(config, tmp_path, run) is None
    assert not (tmp_path / "results.json.gz").exists()
    result = matbench(config, tmp_path, run)
    assert seen == [0, 1, 2, 0, 1, 2, 3, 4]
    assert result is not None and result["test_mae"] == pytest.approx(2.0)
    write_page(tmp_path, config, result)
    page = (tmp_path / "report.html").read_text()
    assert "matbench_phonons: 5 official folds" in page and "2.000 1/cm" in page
    assert "median of the training labels: 8.000 1/cm" in page
    assert "test: 12 crystals" in page  # each of them in one fold
    content = json.loads(gzip.decompress((tmp_path / "results.json.gz").read_bytes()))
    task = content["tasks"]["matbench_phonons"]
    assert content["benchmark_name"] == "matbench_v0.1" and content["@class"] == "MatbenchBenchmark"
    assert list(task["results"]) == [f"fold_{k}" for k in range(5)]
    fold = task["results"]["fold_1"]
    assert fold["data"] == {f"mb-phonons-{i + 1:02d}": 10.0 * i + 1 for i in FOLDS[1]}
    assert fold["scores"]["mae"] == pytest.approx(1.0)
    info = json.loads((tmp_path / "info.json").read_text())
    assert {
        "authors",
        "algorithm",
        "algorithm_long",
        "bibtex_refs",
        "notes",
        "requirements",
    } <= set(info)


def test_of_a_population_the_mean_of_the_predictions_counts(tmp_path: Path) -> None:
    config = defaults.matbench()
    config.population = 2
    config.data.path = str(write_table(tmp_path / "t.json", 12))

    def run(one, place: Path):
        """One network predicts 1 too much, in an order of its own, the other 4 too little."""
        for seed, error in ((0, 1.0), (1, -4.0)):
            tested = FOLDS[one.data.fold][:: 1 - 2 * seed]
            rows = [Prediction(str(i), "test", 10.0 * i, 10.0 * i + error, "x") for i in tested]
            (place / f"seed_{seed}").mkdir(parents=True)
            write_predictions(place / f"seed_{seed}" / "predictions.csv", rows)
        result = {"property": "p", "unit": "1/cm", "crystals": {}, "seeds": [0, 1], "test_mae": 2.5}
        (place / "result.json").write_text(json.dumps(result))
        return result

    result = matbench(config, tmp_path, run)
    assert result is not None and result["test_mae_by_fold"] == [pytest.approx(1.5)] * 5
    assert result["networks"] == 2 and result["single_test_mae_by_fold"] == [2.5] * 5
    content = json.loads(gzip.decompress((tmp_path / "results.json.gz").read_bytes()))
    fold = content["tasks"]["matbench_phonons"]["results"]["fold_1"]
    assert fold["data"] == {f"mb-phonons-{i + 1:02d}": 10.0 * i - 1.5 for i in FOLDS[1]}
    write_page(tmp_path, config, result)
    page = (tmp_path / "report.html").read_text()
    assert "mean of 2 networks" in page and "1.500 1/cm" in page and "2.500" in page


def test_a_model_to_start_from_brings_its_network(tmp_path: Path) -> None:
    config = defaults.matbench()
    config.start_from, config.strategy = "runs/all_but_ph", "gaussian_process"
    config.data.path = str(write_table(tmp_path / "t.json", 12))
    seen = []

    def run(one, place: Path):
        seen.append(one)
        rows = [Prediction(str(i), "test", 1.0, 2.0, "x") for i in FOLDS[one.data.fold]]
        place.mkdir()
        write_predictions(place / "predictions.csv", rows)
        result = {"property": "p", "unit": "1/cm", "crystals": {}, "test_mae": 1.0}
        (place / "result.json").write_text(json.dumps(result))
        return result

    result = matbench(config, tmp_path, run)
    assert result is not None and result["strategy"] == "gaussian_process"
    known = set(defaults.finetune())
    for one in seen:
        assert set(one) == known and one.experiment == "finetune" and not one.data.id_column
        assert (one.start_from, one.strategy) == ("runs/all_but_ph", "gaussian_process")
    content = json.loads(gzip.decompress((tmp_path / "results.json.gz").read_bytes()))
    fold = content["tasks"]["matbench_phonons"]["results"]["fold_0"]
    assert fold["parameters"]["start_from"] == "all_but_ph"
    info = json.loads((tmp_path / "info.json").read_text())
    assert "gaussian_process from all_but_ph" in info["algorithm_long"]


@pytest.mark.parametrize(
    ("start", "field", "value"),
    [
        ("", "strategy", "gaussian_process"),
        ("", "data.max_sites", 50),
        ("", "data.max_rejected_fraction", 0.2),
        ("runs/all_but_ph", "network.trunk.width", 64),
        ("runs/all_but_ph", "graph.cutoff", 5.0),
    ],
)
def test_fields_that_would_change_nothing_are_refused(start: str, field: str, value: Any) -> None:
    config = defaults.matbench()
    config.start_from = start
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"decide these fields(?s:.*)config\.{field} = {value}"):
        matbench(config, Path(), lambda *_: {})


# Of 12 rows; tests/data/test_drawing.py holds them against scikit-learn's.
FOLDS = [[1, 7, 8], [2, 3, 10], [4, 11], [0, 5], [6, 9]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": [*range(1, 13)]}, "the index of the rows is not 0, 1, 2"),
        ({"columns": ["structure", "gap"]}, "'last phdos peak' does not exist"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    config = defaults.matbench()
    config.data.path = str(write_table(tmp_path / "t.json", 12, **change))
    with pytest.raises(UserError, match=reason):
        matbench(config, tmp_path, lambda *_: {})
