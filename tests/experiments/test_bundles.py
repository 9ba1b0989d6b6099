"""What a finished run hands on: a bundle that needs nothing else of the run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmat.bundles.bundle import load, read_bundle
from jaxmat.data.tables import read_table
from jaxmat.experiments import defaults, run

from .conftest import small_finetune, small_scratch, without_times


@pytest.fixture
def moved(pretrained: Path, tmp_path: Path) -> Path:
    """The bundle of a finished run, on its own."""
    shutil.copytree(pretrained / "model", tmp_path / "moved")
    return tmp_path / "moved"


def test_a_bundle_says_what_was_trained_and_tested(pretrained: Path) -> None:
    about = read_bundle(pretrained / "model").about
    result = json.loads((pretrained / "result.json").read_text())
    split = json.loads((pretrained / "split.json").read_text())
    assert about["metrics"]["test_mae"] == result["test_mae"]
    assert about["data"]["path"] == "bundled:formation_energy"
    assert about["data"]["crystals"] == result["crystals"]
    table = read_table("bundled:formation_energy")
    seen = {
        str(element)
        for id, structure in zip(table.ids, table.structures, strict=True)
        if id in split["train"]
        for element in structure.elements
    }
    assert about["elements"] == sorted(seen)


def read_rows(workdir: Path) -> list[dict[str, str]]:
    with (workdir / "predictions.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_interval_is_that_of_the_validation_part(pretrained: Path) -> None:
    model, _, about, _ = read_bundle(pretrained / "model")
    rows = [row for row in read_rows(pretrained) if row["split"] == "validation"]
    errors = np.array([abs(float(row["target"]) - float(row["prediction"])) for row in rows])
    half_width = about["calibration"]["e_form"]["half_width"] * model.transforms["e_form"].scale
    rank = int(np.ceil(0.9 * (len(errors) + 1)))
    assert half_width == pytest.approx(np.sort(errors)[rank - 1], rel=1e-5)


def test_the_bundle_has_the_tested_weights_and_an_interval_with_few_labels(tmp_path: Path) -> None:
    config = small_scratch(test_with="last", epochs=1)
    config.data.n_validation = 8  # too few to calibrate an interval on
    run(config, tmp_path)
    bundle = load(tmp_path)
    (fitted,) = bundle.about["calibration"].values()
    assert fitted["method"] == "leave-one-out of the descriptors"
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    last = load(tmp_path / "checkpoints").variables
    kept = {name: bundle.variables[name] for name in last}  # besides, what intervals need
    assert jax.tree.structure(kept) == jax.tree.structure(last)
    jax.tree.map(np.testing.assert_array_equal, kept, last)


def test_fine_tuning_starts_alike_from_bundle_and_checkpoint(
    tmp_path: Path, pretrained: Path, moved: Path
) -> None:
    """But a checkpoint does not tell which elements and crystals it has seen."""
    one, other = tmp_path / "one", tmp_path / "other"
    from_bundle = run(small_finetune(moved, epochs=1), one)
    from_checkpoint = run(small_finetune(pretrained / "checkpoints", epochs=1), other)
    assert from_bundle is not None and from_bundle.pop("seen_before")["crystals"] == 0
    assert without_times(from_bundle) == without_times(from_checkpoint)
    assert load(other).seen is None
    assert set(load(moved).about["elements"]) < set(load(one).about["elements"])
    assert load(other).about["elements"] is None


def test_a_bundle_can_be_evaluated(tmp_path: Path, pretrained: Path, moved: Path) -> None:
    config = defaults.evaluate(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    config.start_from = str(moved)
    config.data.max_sites = 4
    run(config, tmp_path / "run")
    trained = {row["id"]: float(row["prediction"]) for row in read_rows(pretrained)}
    tested = {row["id"]: float(row["prediction"]) for row in read_rows(tmp_path / "run")}
    both = trained.keys() & tested.keys()
    assert len(both) > 3
    for id in both:
        assert tested[id] == pytest.approx(trained[id], abs=1e-4)
