"""What a model to start from has seen of one's data is counted and said, and passed on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import load
from jaxmat.data.seen import recognise
from jaxmat.errors import UserError
from jaxmat.experiments import carry_out, defaults, run, seen_before
from jaxmat.experiments.final import finish_blend
from jaxmat.experiments.prepare import Prepared, SeenBefore, graph_settings, prepare
from jaxmat.experiments.seen_before import describe_property

from .conftest import small, small_finetune

FIELDS = {"path": "bundled:formation_energy", "target": "e_form", "unit": "eV/atom"}


def same_table(model: Path, **data: Any) -> ConfigDict:
    """Fine-tuning on the table that the model has learned from, with another split."""
    config = small(defaults.finetune(**FIELDS))
    config.start_from, config.strategy = str(model), "gaussian_process_vectors"
    config.data.test_seed, config.data.n_test = 7, 400
    config.data.update(data)
    return config


def test_test_crystals_that_were_seen_are_counted_and_measured(
    pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = carry_out(same_table(pretrained), tmp_path)
    assert result is not None
    before = result["seen_before"]
    split = [json.loads((place / "split.json").read_text()) for place in (pretrained, tmp_path)]
    used = {id for part in ("train", "validation") for id in split[0][part]}
    there = used.intersection(split[1]["test"])
    assert there and before["crystals"] >= len(there)  # others may equal one that was seen
    assert before["labels"] == {"e_form": before["crystals"]}
    n = len(split[1]["test"])
    share = before["crystals"] / n
    mean = share * before["test_mae"] + (1 - share) * before["test_mae_without"]
    assert mean == pytest.approx(result["test_mae"])
    findings = json.loads((tmp_path / "findings.json").read_text())
    said = f"{before['crystals']} of {n} test crystals are among those that {pretrained} was"
    assert any(said in text for text in findings) and said in caplog.text
    assert any("has been trained on a property e_form already" in text for text in findings)


def test_a_mean_is_measured_like_one_model(pretrained: Path, tmp_path: Path) -> None:
    config = small(defaults.scratch(**FIELDS))
    data = prepare(config.data, config.seed, graph_settings(config))
    runs = [tmp_path / "final" / f"member_{i}" for i in range(2)]
    for place in runs:
        shutil.copytree(pretrained, place)
    own = json.loads((pretrained / "result.json").read_text())
    n = len(data.ids["test"])
    before = SeenBefore(np.arange(n) < 5, {"e_form": 5})
    alone = own | {"gaussian_process_test_mae": None}
    results = [{k: v for k, v in alone.items() if v is not None}, own]
    shares = np.full(2, 0.5)
    result = finish_blend(tmp_path / "final", runs, shares, results, 1.0, data, before)
    measured = result["seen_before"]
    assert measured["crystals"] == 5 and measured["labels"] == {"e_form": 5}
    mean = (5 * measured["test_mae"] + (n - 5) * measured["test_mae_without"]) / n
    assert mean == pytest.approx(result["test_mae"]) == pytest.approx(own["test_mae"])
    assert result.get("unseen_elements", {}).keys() == own.get("unseen_elements", {}).keys()
    assert result["gaussian_process_test_mae"] == own["gaussian_process_test_mae"]


def test_what_was_seen_is_passed_on(pretrained: Path, tmp_path: Path) -> None:
    config = small_finetune(pretrained, "gaussian_process_vectors")
    result = carry_out(config, tmp_path)
    assert result is not None and result["seen_before"]["crystals"] == 0
    source, tuned = load(pretrained).seen, load(tmp_path).seen
    assert source is not None and tuned is not None
    assert source.properties == ("e_form",) and tuned.properties == ("e_form", "eij_max")
    assert len(source.composition) == 32 + 16 and len(tuned.composition) == 2 * (32 + 16)
    data = prepare(config.data, config.seed, load(pretrained).model.graph)
    known, labels = recognise(tuned, data.datasets["train"].graphs)
    assert known.all() and labels[:, 1].all() and not labels[:, 0].all()
    # A test on a table that has them says so, too.
    test = defaults.evaluate(path="bundled:piezoelectric", target="eij_max", unit="C/m^2")
    test.start_from, test.data.max_sites = str(tmp_path), 4
    measured = run(test, tmp_path / "test")
    assert measured is not None
    seen = measured["seen_before"]
    assert 0 < seen["crystals"] < measured["crystals"]["test"]
    assert 0 < seen["labels"]["eij_max"] <= seen["crystals"]  # others have labels of e_form
    page = (tmp_path / "test" / "report.html").read_text()
    assert "There the MAE of eij_max on them is" in page and "Nothing odd" not in page


def test_a_property_under_another_name_is_found_by_its_labels(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load(pretrained)
    config = same_table(pretrained, property="stability", test_seed=0, n_test=16)
    data = prepare(config.data, 0, source.model.graph)

    def answers(factor: float) -> str:
        labels = data.labels["train"]
        noise = factor * np.abs(labels - np.median(labels)).mean()
        scaled = source.model.transforms["e_form"].to_scaled(labels + noise)
        monkeypatch.setattr(seen_before, "Predictor", lambda network: lambda *given: scaled)
        return describe_property(source, data, "the model")

    assert "trained on stability already, as e_form: as it is, its MAE" in answers(0.3)
    assert answers(0.7) == ""
    other = data.transforms["stability"]
    changed: Prepared = data._replace(
        transforms={"stability": type(other)("stability", "eV", False, 0.0, 1.0)}
    )
    assert describe_property(source, changed, "the model") == ""


def test_nothing_to_start_from_is_said(tmp_path: Path) -> None:
    config = same_table(Path("none"))
    with pytest.raises(UserError, match=r"comes with the package \(all_six, no_dielectric\)"):
        carry_out(config, tmp_path)
