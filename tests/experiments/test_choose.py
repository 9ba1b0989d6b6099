"""The choice of source and strategy: folds that never see the test part, and the best one found."""

from __future__ import annotations

import csv
import importlib
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.predict import load_members
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, final, run
from jaxmat.experiments.choose import choose, take_together
from jaxmat.experiments.prepare import Prepared, graph_settings, prepare
from jaxmat.experiments.single import never
from jaxmat.report.choice import Option
from jaxmat.report.predictions import Prediction, read_predictions, write_predictions

CONFIG = Path(__file__).parents[2] / "configs/choose.py"
TRANSFORM = TargetTransform("a", "eV", False, 0.0, 1.0)
GOOD, BAD = "runs/good", "runs/bad"
# One model is picked, and only networks are tried.
ALONE = {"gaussian_process": False, "blend": False, "strategies": ("all_layers", "last_layer")}


def smoke() -> ConfigDict:
    return runpy.run_path(str(CONFIG))["get_config"]("smoke")


def config(**fields: Any) -> ConfigDict:
    """Two candidates and random weights; nothing of it is trained."""
    config = smoke()
    del config.pretrain
    config.update({"candidates": (GOOD, BAD), "folds": 4, **ALONE, **fields})
    return config


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(config().data, 0, graph_settings(config()))


class FakeTrainings:
    """Predicts every label with an error that depends on the option, without training."""

    def __init__(self) -> None:
        self.populations: list[list[Path]] = []
        self.configs: dict[Path, ConfigDict] = {}
        self.errors = {"scratch": 0.5, GOOD: 0.1, BAD: 0.4}
        self.refuses: Callable[[ConfigDict], bool] = lambda config: False
        self.stops_at: str | None = None
        self.seconds = 1.0
        self.ids: dict[str, tuple[str, ...]] = {}
        self.labels: dict[str, float] = {}

    def train(
        self, configs: Sequence[ConfigDict], runs: Sequence[Path], common: Path, stop: Any
    ) -> list[dict[str, Any]] | None:
        done = [run / "result.json" for run in runs]
        if all(file.exists() for file in done):
            return [json.loads(file.read_text()) for file in done]
        self.populations.append(list(runs))
        if self.stops_at and self.stops_at in str(runs[0]):
            return None
        return [self._train(*each) for each in zip(configs, runs, strict=True)]

    def _train(self, config: ConfigDict, run: Path) -> dict[str, Any]:
        self.configs[run] = config
        if self.refuses(config):
            raise UserError("it has several heads")
        parts = {"train": ["a"], "validation": ["b"], "test": ["c"]}
        if config.data.split:
            parts = json.loads(Path(config.data.split).read_text())
        name = config.get("start_from", config.experiment)
        error = self.errors[name]
        run.mkdir(parents=True, exist_ok=True)
        labels = self.labels
        lines = [
            f"{id},{part},{labels.get(id, 1.0)},{labels.get(id, 1.0) + error},1"
            for part, ids in parts.items()
            for id in ids
        ]
        text = "\n".join(["id,split,target,prediction,unit", *lines, ""])
        (run / "predictions.csv").write_text(text)
        result = {
            "property": "poly_total",
            "unit": "1",
            "crystals": {part: len(ids) for part, ids in parts.items()},
            "test_mae": 0.3,
            "constant_test_mae": 2.0,
            "seconds": self.seconds,
        }
        (run / "result.json").write_text(json.dumps(result))
        return result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, prepared: Prepared) -> FakeTrainings:
    fake = FakeTrainings()
    module = importlib.import_module("jaxmat.experiments.choose")
    monkeypatch.setattr(module, "train_population", fake.train)
    monkeypatch.setattr(module, "prepare", lambda *arguments: prepared)
    monkeypatch.setattr(module, "load_starts", lambda places: {})
    monkeypatch.setattr(module, "recalibrate", lambda *arguments: None)
    monkeypatch.setattr(module, "_alike", lambda config, options: options)
    fake.ids = prepared.ids
    for part, ids in prepared.ids.items():
        fake.labels |= dict(zip(ids, prepared.labels[part][:, 0].tolist(), strict=True))
    return fake


def test_trainings_on_folds_that_were_cut_otherwise_are_not_gone_on_with(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    """As an earlier version did with groups."""
    assert run(config(), tmp_path) is not None
    (tmp_path / "result.json").unlink()
    file = tmp_path / "splits" / "repeat_0_fold_1.json"
    split = json.loads(file.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    file.write_text(json.dumps(split))
    with pytest.raises(UserError, match=r"cut otherwise now \(repeat_0_fold_1.json\)"):
        run(config(), tmp_path)


def test_intervals_are_widened_once_though_it_was_killed_amid_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = SimpleNamespace(heads={"a": {}}, transforms={"a": TRANSFORM})
    calibration = {"factor": 1.0, "half_width": 1.0, "method": "validation"}
    kept = [Bundle(model, {}, {"calibration": {"a": calibration}}, None)]
    rows = [Prediction("1", "test", 1.0, 2.0, "eV", 1.5, 2.5)]
    write_predictions(tmp_path / "predictions.csv", rows)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(final, "read_bundle", lambda place: kept[-1])
    monkeypatch.setattr(final, "save_bundle", killed)
    ratios = np.full(50, 3.0)
    with pytest.raises(KeyboardInterrupt):
        final.recalibrate(tmp_path, ratios)
    monkeypatch.setattr(final, "save_bundle", lambda place, bundle: kept.append(bundle))
    for _ in range(2):
        final.recalibrate(tmp_path, ratios)
        (row,) = read_predictions(tmp_path / "predictions.csv")
        assert (row.low, row.high) == pytest.approx((0.5, 3.5))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_the_best_option_is_found_and_trained_on_all_labels(
    tmp_path: Path, fake: FakeTrainings, prepared: Prepared
) -> None:
    result = run(config(), tmp_path)
    assert result is not None
    assert (result["source"], result["strategy"]) == (GOOD, "all_layers")
    assert result["expected_mae"] == pytest.approx(0.1)
    assert result["out_of_fold_mae"] == pytest.approx(
        {
            f"all_layers from {GOOD}": 0.1,
            f"last_layer from {GOOD}": 0.1,
            f"all_layers from {BAD}": 0.4,
        }
    )
    # The worse half is left out after two folds.
    assert result["left_out_options"].keys() == {f"last_layer from {BAD}", "random weights"}
    assert "after 2 folds" in result["left_out_options"]["random weights"]
    final = fake.configs[tmp_path / "final"]
    assert (final.start_from, final.strategy, final.data.split) == (GOOD, "all_layers", "")
    assert final.data == config().data and final.seed == config().seed
    assert result["test_mae"] == 0.3

    test = set(prepared.ids["test"])
    others = {*prepared.ids["train"], *prepared.ids["validation"]}
    splits = [json.loads(file.read_text()) for file in (tmp_path / "splits").iterdir()]
    assert len(splits) == 4 + 1
    for split in splits:
        seen = {id for ids in split.values() for id in ids}
        assert seen == others and not seen & test
    folds = [run for run in fake.configs if run.name != "final"]
    assert len(folds) == 5 * 2 + 3 * 2 and all(fake.configs[run].data.split for run in folds)


def test_random_weights_may_be_best_and_may_be_left_out(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    fake.errors["scratch"] = 0.05
    result = run(config(), tmp_path / "with")
    assert result is not None and (result["source"], result["strategy"]) == ("", "")
    assert fake.configs[tmp_path / "with" / "final"].experiment == "scratch"
    result = run(config(scratch=False), tmp_path / "without")
    assert result is not None and result["source"] == GOOD


def test_folds_train_together_up_to_the_population_and_are_repeated(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"candidates": (GOOD,), "strategies": ("all_layers",), "scratch": False}
    told = []
    search = importlib.import_module("jaxmat.experiments.search")
    monkeypatch.setattr(search, "worse_half", lambda errors, folds: told.append(folds) or {})
    assert run(config(**fields, population=3, repeats=2), tmp_path)
    assert told == [4]  # folds that the labels are cut into, however often
    # Two folds first; then the others.
    assert [len(runs) for runs in fake.populations] == [2, 3, 3, 1]
    seeds = [fake.configs[run].seed for runs in fake.populations[:3] for run in runs]
    assert seeds == list(range(8))
    splits = tmp_path / "splits"
    first, second = (splits / f"repeat_{i}_fold_0.json" for i in (0, 1))
    assert first.read_text() != second.read_text()


def test_an_option_that_fails_is_reported_and_the_rest_goes_on(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    fake.refuses = lambda config: config.get("start_from") == GOOD
    result = run(config(), tmp_path)
    assert result is not None and result["source"] == BAD
    reason = "it has several heads"
    assert result["failed"] == {
        f"{strategy} from {GOOD}": reason for strategy in ("all_layers", "last_layer")
    }
    assert f"all_layers from {GOOD}: {reason}" in (tmp_path / "choice.md").read_text()
    with (tmp_path / "comparison.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["done"] * 2 + ["left out"] + ["failed"] * 2


def test_predictions_that_are_not_finite_are_no_option(tmp_path: Path, fake: FakeTrainings) -> None:
    fake.errors[GOOD] = float("inf")
    result = run(config(), tmp_path)
    assert result is not None and result["source"] == BAD
    assert "not finite" in result["failed"][f"all_layers from {GOOD}"]


def test_all_reasons_are_given_where_no_option_can_be_trained(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    fake.refuses = lambda config: True
    with pytest.raises(UserError, match=f"(?s)random weights: it has.*from {BAD}: it has"):
        run(config(), tmp_path)


@pytest.mark.parametrize("place", ["0_scratch", "3_all_layers", "final"])
def test_a_stopped_choice_goes_on_where_it_was(
    tmp_path: Path, fake: FakeTrainings, place: str
) -> None:
    fake.stops_at = place
    assert run(config(), tmp_path) is None
    fake.stops_at, before = None, len(fake.populations)
    result = run(config(), tmp_path)
    assert result is not None and result["source"] == GOOD
    assert place in str(fake.populations[before][0])
    assert len(fake.populations) == 5 + 3 + 1 + 1
    assert run(config(), tmp_path) == result


def test_a_process_is_judged_by_leave_one_out_and_may_be_best(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    fake.errors["gaussian_process"] = 0.05
    result = run(config(gaussian_process=True), tmp_path)
    assert result is not None and result["strategy"] == "gaussian_process"
    process = [run for run, config in fake.configs.items() if "gaussian" in config.experiment]
    assert [run.name for run in process] == ["leave_one_out", "final"]
    split = json.loads(Path(fake.configs[process[0]].data.split).read_text())
    labels = [id for part in ("train", "validation") for id in fake.ids[part]]
    assert [id for ids in split.values() for id in ids] == labels and len(split["test"]) == 1
    assert result["out_of_fold_mae"]["Gaussian process on descriptors"] == pytest.approx(0.05)


def test_where_the_time_is_up_the_first_folds_speak_and_what_lacks_them_is_left_out(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    module = importlib.import_module("jaxmat.experiments.search")
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    train = fake.train

    def slow(configs: Any, runs: Any, common: Any, stop: Any) -> Any:
        networks = [config for config in configs if config.experiment != "gaussian_process"]
        for _ in range(100 * len(networks)):
            now[0] += 1.0
            if stop(1):
                return None
        return train(configs, runs, common, stop)

    monkeypatch.setattr(
        importlib.import_module("jaxmat.experiments.choose"), "train_population", slow
    )
    fake.errors["gaussian_process"] = 0.6
    result = run(config(gaussian_process=True, minutes=10.0), tmp_path)
    assert result is not None
    assert (result["source"], result["strategy"]) == (GOOD, "all_layers")
    assert set(result["out_of_fold_mae"]) == {
        *("Gaussian process on descriptors", "random weights", f"all_layers from {GOOD}")
    }
    late = [text for text in result["left_out_options"].values() if "minutes" in text]
    assert len(late) == 3 and "another --workdir with more --minutes" in late[0]
    with (tmp_path / "comparison.csv").open() as stream:
        labels = {int(row["labels"]) for row in csv.DictReader(stream)}
    parts = [json.loads((tmp_path / f"splits/repeat_0_fold_{i}.json").read_text()) for i in (0, 1)]
    assert labels == {sum(len(split["test"]) for split in parts)}
    assert "time was up after 2 of 4 folds" in (tmp_path / "choice.md").read_text()
    assert now[0] < 600


def test_processes_go_through_all_folds_before_networks_start(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("jaxmat.experiments.search"), "_MOST_LEFT_OUT", 0)
    fake.errors["gaussian_process"] = 0.2
    assert run(config(gaussian_process=True), tmp_path)
    kinds = [fake.configs[run].experiment for runs in fake.populations for run in runs]
    assert kinds[:4] == ["gaussian_process"] * 4 and "gaussian_process" not in kinds[4:-1]


def test_a_mean_is_made_of_what_can_be_trained_in_the_time_that_is_left() -> None:
    seconds = {Option("a", ""): 30.0, Option("b", ""): 5.0, Option("c", ""): 20.0}
    assert take_together(seconds, 40.0) == [Option("b", ""), Option("c", "")]
    assert take_together(seconds, 55.0) == [Option("b", ""), Option("c", ""), Option("a", "")]
    assert take_together(seconds, 4.0) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"candidates": (), "scratch": False}, "--config.candidates=DIR,DIR"),
        ({"strategies": ("all_layers,best",)}, "'best' is unknown"),
        ({"folds": 1}, "config.folds is 1; it has to be a whole number from 2"),
        ({"folds": 60}, "too few for 60 folds"),
        ({"data": {"scaling_labels": "all"}}, "has to be 'training'"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, fake: FakeTrainings, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(config(**fields), tmp_path)
    assert not fake.populations


def test_candidates_are_split_at_commas(tmp_path: Path, fake: FakeTrainings) -> None:
    """As they arrive from the command line."""
    result = run(config(candidates=(f"{GOOD},{BAD}",)), tmp_path)
    assert result is not None
    assert len(result["out_of_fold_mae"]) + len(result["left_out_options"]) == 5


def test_the_smallest_choice_is_stopped_goes_on_and_leaves_a_model(tmp_path: Path) -> None:
    def during_the_second_option(step: int) -> bool:
        return step == 1 and (tmp_path / "options/3_all_layers").exists()

    assert run(smoke(), tmp_path, during_the_second_option) is None
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("result.json")}
    # The pre-training, two processes by leave-one-out and two folds from random weights.
    assert len(files) == 1 + 2 + 2
    result = run(smoke(), tmp_path, never)
    assert result is not None
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
    assert len(result["out_of_fold_mae"]) == 5 and not result["failed"]
    assert result["crystals"] == {"train": 32, "validation": 16, "test": 16}
    assert result["recommendation"] in (tmp_path / "choice.md").read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 0
    for member in load_members([tmp_path / "final"]):
        assert list(member.model.heads) == ["poly_total"]

    splits = [json.loads(file.read_text()) for file in (tmp_path / "options").rglob("split.json")]
    split_of_final = next((tmp_path / "final").rglob("split.json"))
    final = json.loads(split_of_final.read_text())
    # Folds of networks, and what processes left one out of: none has met the test part.
    assert len(splits) == 6 + 2
    for split in splits:
        seen = {id for ids in split.values() for id in ids}
        assert seen == {*final["train"], *final["validation"]} and not seen & {*final["test"]}


def test_a_model_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """The choice was made without it, and ended well."""
    config = defaults.choose(path="bundled:dielectric", target="poly_total", unit="1")
    config.candidates = ("all_sixx", "no_dielectric", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="(?s)cannot be used.*all_sixx does not.*nothing does not"):
        choose(config, tmp_path / "run", lambda step: False)
    assert not (tmp_path / "run").exists()
