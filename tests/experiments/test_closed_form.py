"""Gaussian processes as experiments and strategies, and as the baseline of every training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Structure
from safetensors.numpy import load_file, save_file

from jaxmat.bundles.bundle import load, save_bundle
from jaxmat.bundles.embed import embed
from jaxmat.bundles.predict import predict
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.baseline import describe
from jaxmat.experiments.closed_form import head_options
from jaxmat.models.gaussian_process import posterior
from jaxmat.report.predictions import read_predictions
from jaxmat.training import gaussian_process

from .conftest import small_finetune


def small_process(**data: Any) -> ConfigDict:
    fields = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
    config = defaults.variant(defaults.gaussian_process(**fields), "smoke")
    config.data.update(log=True, **data)
    return config


def crystals(path: str, ids: Sequence[str]) -> list[Structure]:
    """Crystals of a table by their ids."""
    table = read_table(path)
    return [table.structures[table.ids.index(id)] for id in ids]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("fitted")
    result = run(small_process(), workdir)
    assert result is not None
    return workdir, result


def test_the_model_of_a_process_says_of_test_crystals_what_the_run_said(
    fitted: tuple[Path, dict[str, Any]],
) -> None:
    workdir, result = fitted
    rows = {row.id: row for row in read_predictions(workdir / "predictions.csv")}
    test = json.loads((workdir / "split.json").read_text())["test"]
    structures = crystals("bundled:dielectric", test)
    known = [
        pair for pair in zip(test, predict(workdir, structures), strict=True) if not pair[1].reason
    ]
    assert len(known) >= 4  # the others hold an element that the labels lack
    for id, forecast in known:
        assert forecast.prediction == pytest.approx(rows[id].prediction, rel=1e-3)
        width = (rows[id].high - rows[id].low) / 2
        assert forecast.uncertainty == pytest.approx(width, rel=1e-2)
    assert len({forecast.uncertainty for _, forecast in known}) == len(known)
    assert embed(workdir, structures)["vector"].shape == (len(known), 105)
    assert result["train_and_validation_predictions"] == "leave-one-out"
    assert "gaussian_process_test_mae" not in result  # it is one itself


def test_a_bundle_of_before_has_the_intervals_of_then(
    fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Spreads of format 3 are the process's own deviations."""
    bundle = load(fitted[0])
    process = dict(bundle.variables["params"]["heads_poly_total"])
    del process["ratios"]
    written = bundle._replace(variables={"params": {"heads_poly_total": process}})
    save_bundle(tmp_path / "old", written)
    config = json.loads((tmp_path / "old" / "config.json").read_text()) | {"format": 3}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    arrays = load_file(tmp_path / "old" / "model.safetensors")
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    digests["config.json"] = hashlib.sha256(json.dumps(config).encode()).hexdigest()
    save_file(arrays, tmp_path / "old" / "model.safetensors", {"sha256": json.dumps(digests)})

    rows = [r for r in read_predictions(fitted[0] / "predictions.csv") if r.split == "test"]
    structures = crystals("bundled:dielectric", [row.id for row in rows])
    old, new = (predict(place, structures) for place in (tmp_path / "old", fitted[0]))
    data = Dataset(list(build_graphs(structures, bundle.model.graph)), np.zeros((len(rows), 1)))
    deviation = posterior(process, describe(data))[1]
    (calibration,) = bundle.about["calibration"].values()
    scale = bundle.model.transforms["poly_total"].scale
    for before, now, one in zip(old, new, deviation, strict=True):
        if not now.reason:
            assert before.prediction == now.prediction and before.uncertainty != now.uncertainty
            half = calibration["factor"] * float(one) * scale
            ends = before.prediction * np.exp([-half, half])
            assert [before.low, before.high] == pytest.approx(ends, rel=1e-3)


def test_labels_it_was_fitted_to_are_predicted_from_the_others(
    fitted: tuple[Path, dict[str, Any]],
) -> None:
    rows = [r for r in read_predictions(fitted[0] / "predictions.csv") if r.split != "test"]
    errors = np.array([abs(row.prediction - row.target) for row in rows])
    assert len(rows) == 48 and np.median(errors) > 0.1
    inside = np.mean([row.low <= row.target <= row.high for row in rows])
    assert 0.85 <= inside <= 0.98


def test_a_process_is_fitted_to_vectors_of_a_network_and_beside_it_stands_the_baseline(
    pretrained: Path, tmp_path: Path
) -> None:
    config = small_finetune(pretrained, "gaussian_process")
    result = run(config, tmp_path)
    assert result is not None and result["gaussian_process_labels"] == 48
    assert "a Gaussian process on descriptors fitted to 48 of the same labels" in result["verdict"]
    model, variables, about, _ = load(tmp_path)
    source = load(pretrained)
    assert model.heads["eij_max"]["columns"] == 16 + 105
    for name in source.variables["params"]["trunk"]:
        np.testing.assert_equal(
            variables["params"]["trunk"][name], source.variables["params"]["trunk"][name]
        )
    assert about["calibration"]["eij_max"]["method"] == "leave-one-out"
    on_vectors = run(small_finetune(pretrained, "gaussian_process_vectors"), tmp_path / "vectors")
    assert (
        on_vectors is not None
        and load(tmp_path / "vectors").model.heads["eij_max"]["columns"] == 16
    )


def test_intervals_of_a_network_differ_from_crystal_to_crystal(pretrained: Path) -> None:
    bundle = load(pretrained)
    calibration = bundle.about["calibration"]["e_form"]
    assert calibration["method"] == "validation" and calibration["process_labels"] == 48
    rows = [r for r in read_predictions(pretrained / "predictions.csv") if r.split == "test"]
    assert len({round(row.high - row.low, 6) for row in rows}) > 10
    structures = crystals("bundled:formation_energy", [row.id for row in rows])
    pairs = zip(rows, predict(pretrained, structures), strict=True)
    known = [(row, forecast) for row, forecast in pairs if not forecast.reason]
    assert len(known) >= 4
    for row, forecast in known:
        assert forecast.uncertainty == pytest.approx((row.high - row.low) / 2, rel=1e-2)


def test_few_validation_labels_leave_no_interval_blank(tmp_path: Path) -> None:
    config = small_process(n_train=5, n_validation=2)
    assert run(config, tmp_path / "process") is not None
    for row in read_predictions(tmp_path / "process" / "predictions.csv"):
        assert row.low < row.prediction < row.high


def test_too_many_labels_are_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian_process, "MOST_LABELS", 40)
    with pytest.raises(UserError, match=r"2 to 40 labels .*not to 48; lower config.data.n_train"):
        run(small_process(), tmp_path)


def test_a_process_is_nothing_to_train_on(
    fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no network in it to start from"):
        run(small_finetune(fitted[0]), tmp_path)


def test_too_many_labels_are_told_before_any_vector_is_computed() -> None:
    """As what can be mended, not as an option of the head that nobody has set."""

    class Data:
        ids = {"train": range(9000), "validation": range(1000)}

    data: Any = Data()
    with pytest.raises(UserError, match=r"not to 10000; lower config\.data\.n_train"):
        head_options(data, 8, descriptors=False)
