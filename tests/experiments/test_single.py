from __future__ import annotations

import csv
import gzip
import json
import operator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxmat.bundles.bundle import load
from jaxmat.data.reading import bundled_path
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.prepare import graph_settings, prepare
from jaxmat.runtime import hosts
from jaxmat.training.checkpoints import load_variables

from .conftest import small_finetune, small_scratch, without_times


def leaves(tree: Any) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def test_a_run_leaves_all_that_is_needed_to_understand_it(tmp_path: Path) -> None:
    config = small_scratch()
    result = run(config, tmp_path)
    assert result is not None
    assert json.loads((tmp_path / "config.json").read_text()) == config.to_dict()
    assert json.loads((tmp_path / "result.json").read_text()) == result
    with (tmp_path / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "split", "target", "prediction", "unit", "low", "high"]
    test = [row for row in rows if row["split"] == "test"]
    errors = [abs(float(row["target"]) - float(row["prediction"])) for row in test]
    assert np.mean(errors) == pytest.approx(result["test_mae"])
    split = json.loads((tmp_path / "split.json").read_text())
    assert {part: len(ids) for part, ids in split.items()} == result["crystals"]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4]
    assert min(record["validation_mae"] for record in records) == pytest.approx(
        result["validation_mae"], rel=1e-5
    )
    for name in ("parity.png", "learning_curve.png", "versions.json"):
        assert (tmp_path / name).stat().st_size > 0
    model, *_ = load(tmp_path)
    assert model.transforms["poly_total"].unit == "1"


def test_a_run_goes_by_its_split_file(tmp_path: Path) -> None:
    assert run(small_scratch(), tmp_path / "drawn")
    config = small_scratch()
    config.data.update(split=str(tmp_path / "drawn" / "split.json"), n_train=0)
    config.data.update(n_validation=0, n_test=0)
    config.seed = 1
    assert run(config, tmp_path / "given")
    first, second = (
        json.loads((tmp_path / name / "split.json").read_text()) for name in ("drawn", "given")
    )
    assert first == second


def test_a_run_stopped_after_each_step_ends_as_the_one_that_never_stopped(tmp_path: Path) -> None:
    whole = run(small_scratch(), tmp_path / "whole")
    for last in (1, 2, 3):
        stop = partial(operator.eq, last)
        assert run(small_scratch(), tmp_path / "stopped", stop) is None
    resumed = run(small_scratch(), tmp_path / "stopped")
    assert whole is not None and resumed is not None
    assert without_times(whole) == without_times(resumed)
    for kind in ("last", "best"):
        first, second = (
            leaves(load_variables(newest(tmp_path / name / "checkpoints" / kind))[0])
            for name in ("whole", "stopped")
        )
        assert first.keys() == second.keys()
        for name, leaf in first.items():
            np.testing.assert_array_equal(leaf, second[name], err_msg=name)


def newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda place: int(place.name))


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(small_scratch(), tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert run(small_scratch(), tmp_path) == first
    assert (tmp_path / "metrics.jsonl").read_text() == written


def test_another_config_in_a_used_directory_is_refused(tmp_path: Path) -> None:
    run(small_scratch(), tmp_path)
    with pytest.raises(UserError, match=r"training.learning_rate: 0.001 there, 0.01 now"):
        run(small_scratch(learning_rate=0.01), tmp_path)


def test_seeds_draw_other_labels_but_the_same_test() -> None:
    config = small_scratch()
    first, second = (prepare(config.data, seed, graph_settings(config)).ids for seed in (0, 1))
    assert first["test"] == second["test"]
    assert set(first["train"]) != set(second["train"])


@pytest.mark.parametrize("strategy", ["all_layers", "last_layer", "new_head"])
def test_frozen_leaves_stay_bitwise_and_others_move(
    tmp_path: Path, pretrained: Path, strategy: str
) -> None:
    result = run(small_finetune(pretrained, strategy, test_with="last"), tmp_path)
    assert result is not None and result["unit"] == "C/m^2"
    before = leaves(load_variables(pretrained)[0])
    last = newest(tmp_path / "checkpoints" / "last")
    after = leaves(load_variables(last)[0])
    trunk = [name for name in after if name.startswith("params/trunk/")]
    # The average of a frozen leaf is the leaf up to rounding; live ones are compared in
    # tests/training, where the state is at hand.
    moved = [n for n in trunk if not np.allclose(before[n], after[n], rtol=1e-6, atol=1e-9)]
    assert bool(moved) == (strategy == "all_layers")
    actions = {fate["action"] for fate in json.loads((tmp_path / "transfer.json").read_text())}
    expected = {"copied", "re-initialised", "dropped"} if strategy == "new_head" else {"copied"}
    assert actions == expected


def test_a_fine_tuned_model_uses_the_graphs_of_its_checkpoint(tmp_path: Path) -> None:
    config = small_scratch(epochs=1)
    config.graph.neighbor_rule = "reference"
    run(config, tmp_path / "source")
    run(small_finetune(tmp_path / "source", epochs=1), tmp_path / "tuned")
    model, *_ = load(tmp_path / "tuned")
    assert model.graph.neighbor_rule == "reference"


def test_evaluation_repeats_the_errors_of_training(tmp_path: Path, pretrained: Path) -> None:
    config = defaults.evaluate(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    config.start_from = str(pretrained)
    config.data.max_sites = 8
    result = run(config, tmp_path)
    assert result is not None
    with (pretrained / "predictions.csv").open() as stream:
        trained = {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream)}
    with (tmp_path / "predictions.csv").open() as stream:
        tested = {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream)}
    assert len(tested) == result["crystals"]["test"] > len(trained)
    for id, prediction in trained.items():
        assert tested[id] == pytest.approx(prediction, abs=1e-4)


def test_evaluation_without_a_model_says_how_to_name_one(tmp_path: Path) -> None:
    """It told of a model to start from, and of training from random weights."""
    config = defaults.evaluate(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    with pytest.raises(UserError, match="no model to test; give .*all_six.*: --model=DIR"):
        run(config, tmp_path)


def test_evaluation_refuses_another_unit(tmp_path: Path, pretrained: Path) -> None:
    config = defaults.evaluate(path="bundled:formation_energy", target="e_form", unit="meV/atom")
    config.start_from = str(pretrained)
    with pytest.raises(UserError, match="predicts e_form in eV/atom"):
        run(config, tmp_path)


def test_processes_are_held_against_the_labels_that_each_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def note(value: str, problem: str) -> None:
        told.append(value)
        raise UserError(problem)

    monkeypatch.setattr(hosts, "require_same", note)
    config, table = small_scratch(), json.loads(gzip.open(bundled_path("dielectric")).read())
    config.data.path = str(tmp_path / "table.json")
    column = table["columns"].index(config.data.target)
    del table["index"][150:], table["data"][150:]
    for label in (10.0, 11.0):
        for row in table["data"]:
            row[column] = label + row[column] % 1
        Path(config.data.path).write_text(json.dumps(table))
        with pytest.raises(UserError, match="do not see the same data"):
            run(config, tmp_path / str(label))
    assert len(set(told)) == 2


def records_of(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_patience_ends_a_training_that_gets_no_better(tmp_path: Path) -> None:
    config = small_scratch(epochs=40, patience=1, learning_rate=0.3)
    assert run(config, tmp_path / "whole") is not None
    curve = [record["validation_mae"] for record in records_of(tmp_path / "whole")]
    assert len(curve) == int(np.argmin(curve)) + 2 < 40

    # One that was stopped at its end does not go on beyond it.
    run(config, tmp_path / "stopped", stop=lambda step: step == 2 * len(curve))
    assert run(config, tmp_path / "stopped") is not None
    assert records_of(tmp_path / "stopped") == records_of(tmp_path / "whole")
