"""Cells of a study are run once each, whatever fails, stops or runs beside."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study import run_study
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.plan import measured_rates
from jaxmat.experiments.study.runner import Trainer
from jaxmat.experiments.study.runs import open_study, run_config, run_length
from jaxmat.experiments.training_run import MembersFailed
from jaxmat.report.rows import read_rows
from jaxmat.report.study.results import CellResult


class FakeTrainer:
    """Writes results without training; keeps a record of what it was asked for."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.populations: list[list[str]] = []
        self.places: list[Path] = []
        self.reports: list[str] = []
        self.stops_at: str | None = None
        self.on_run: Callable[[str], None] = lambda id: None

    def run(self, config: ConfigDict, workdir: Path, stop: Any) -> dict[str, Any] | None:
        self.runs.append(workdir.name)
        if workdir.name == self.stops_at:
            return None
        self.on_run(workdir.name)
        split = json.loads(Path(config.data.split).read_text())
        if config.experiment == "finetune":
            assert (Path(config.start_from) / "result.json").exists()
        predictions = [f"{id},test,1.0,1.5,{config.data.unit}" for id in split["test"]]
        header = "id,split,target,prediction,unit"
        result = {
            "property": config.data.target,
            "unit": config.data.unit,
            "crystals": {part: len(ids) for part, ids in split.items()},
            "test_mae": 0.5,
            "seconds": 10.0,
        }
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "predictions.csv").write_text("\n".join([header, *predictions]) + "\n")
        (workdir / "result.json").write_text(json.dumps(result))
        return result

    def run_population(
        self, configs: Sequence[ConfigDict], workdirs: Sequence[Path], workdir: Path, stop: Any
    ) -> list[dict[str, Any] | None] | None:
        self.populations.append([place.name for place in workdirs])
        self.places.append(workdir)
        if self.stops_at in self.populations[-1]:
            return None
        return [self.run(*each, stop) for each in zip(configs, workdirs, strict=True)]

    def write_report(
        self,
        rows: list[CellResult],
        folder: Path,
        *,
        title: str,
        settings: Any,
        published: Any,
        command: str,
    ) -> Path:
        assert command
        assert any(row.status == "done" for row in rows) and published is None
        assert settings["data"]["log"] == ["dielectric"]
        assert settings["training"]["batch_size"] == 16
        self.reports.append(title)
        return folder / "report.html"

    def trainer(self, stop: Callable[[int], bool] = lambda step: False) -> Trainer:
        return Trainer(self.run, self.run_population, stop)


def config(**job: Any) -> ConfigDict:
    config = defaults.variant(defaults.study("a title"), "smoke")
    config.study.targets = ("dielectric",)
    config.study.sources = ("piezoelectric",)
    config.data.max_sites = 3
    config.job.population = 1
    config.job.update(job)
    return config


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a study keeps of its tables, so that they are not read in each test."""
    workdir = tmp_path_factory.mktemp("tables")
    open_study(config(), workdir)
    return workdir / "tables"


@pytest.fixture
def fake(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    shutil.copytree(tables, tmp_path / "tables")
    fake = FakeTrainer()
    monkeypatch.setattr("jaxmat.experiments.study.runner._POLL_SECONDS", 0.01)
    monkeypatch.setattr("jaxmat.experiments.study.write_report", fake.write_report)
    return fake


def read_results(workdir: Path) -> list[dict[str, str]]:
    return [row for _, row in read_rows(workdir / "results.csv", CellResult._fields)]


CELLS = [
    "scratch-dielectric-20-lr0.001-t1-s0",
    "scratch-dielectric-20-lr0.001-t2-s0",
    "finetune-piezoelectric-32-dielectric-20-all_layers-lr0.001-t1-s0",
    "finetune-piezoelectric-32-dielectric-20-all_layers-lr0.001-t2-s0",
]
PRETRAIN = "pretrain-piezoelectric-32-s0"


def test_all_is_run_once_with_shared_pretraining_and_reported(
    tmp_path: Path, fake: FakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="jaxmat")
    assert run_study(config(), tmp_path, fake.trainer()) == {"done": 4}
    assert "training 1 of 5" in (tmp_path / "log.txt").read_text()
    assert fake.runs == [*CELLS[:2], PRETRAIN, *CELLS[2:]]
    rows = read_results(tmp_path)
    assert [row["cell"] for row in rows] == CELLS
    assert {row["status"] for row in rows} == {"done"}
    last = rows[-1]
    named = ("source", "source_size", "target", "target_size", "trial", "seed")
    assert [last[name] for name in named] == ["piezoelectric", "32", "dielectric", "20", "2", "0"]
    named = ("kind", "strategy", "protocol", "n_train", "n_validation", "test_mae", "seconds")
    assert [last[name] for name in named] == [
        *("finetune", "all_layers", "sound", "18", "2", "0.5", "10.0")
    ]
    assert (tmp_path / last["directory"] / "predictions.csv").exists()
    assert fake.reports == ["a title"]
    run_study(config(), tmp_path, fake.trainer())
    assert len(fake.runs) == 5


def test_the_grid_may_grow_but_the_settings_may_not_change(
    tmp_path: Path, fake: FakeTrainer
) -> None:
    run_study(config(), tmp_path, fake.trainer())
    grown = config()
    grown.study.strategies = ("new_head", "all_layers")
    assert run_study(grown, tmp_path, fake.trainer()) == {"done": 6}
    assert len(fake.runs) == 7
    grown.training.epochs = 3
    with pytest.raises(UserError, match="training.epochs: 2 there, 3 now"):
        run_study(grown, tmp_path, fake.trainer())


@pytest.mark.parametrize("stops_at", [CELLS[1], PRETRAIN, CELLS[3]])
def test_a_stopped_study_goes_on_at_the_cell(
    tmp_path: Path, fake: FakeTrainer, stops_at: str
) -> None:
    fake.stops_at = stops_at
    assert run_study(config(), tmp_path, fake.trainer()) is None
    assert fake.runs[-1] == stops_at
    fake.stops_at, before = None, len(fake.runs)
    assert run_study(config(), tmp_path, fake.trainer()) == {"done": 4}
    assert fake.runs[before] == stops_at
    assert len(fake.runs) == 6


def test_a_signal_between_cells_stops(tmp_path: Path, fake: FakeTrainer) -> None:
    assert run_study(config(), tmp_path, fake.trainer(lambda step: len(fake.runs) == 2)) is None
    assert fake.runs == CELLS[:2]


def test_a_failure_is_recorded_and_tried_again(tmp_path: Path, fake: FakeTrainer) -> None:
    def fail(id: str) -> None:
        if id == CELLS[0]:
            raise ZeroDivisionError("no more memory")

    fake.on_run = fail
    with pytest.raises(UserError, match=f"(?s)1 of 4 cells failed.*{CELLS[0]}: .*no more memory"):
        run_study(config(), tmp_path, fake.trainer())
    assert len(fake.runs) == 5
    text = (tmp_path / "cells" / CELLS[0] / "error.txt").read_text()
    assert "Traceback" in text and "no more memory" in text
    rows = read_results(tmp_path)
    assert [row["status"] for row in rows] == ["failed", "done", "done", "done"]
    assert "no more memory" in rows[0]["reason"] and not rows[0]["test_mae"]
    fake.on_run = lambda id: None
    assert run_study(config(), tmp_path, fake.trainer()) == {"done": 4}
    assert fake.runs[5:] == [CELLS[0]]
    assert not (tmp_path / "cells" / CELLS[0] / "error.txt").exists()


def test_a_reason_that_is_no_text_ends_no_report(tmp_path: Path, fake: FakeTrainer) -> None:
    (tmp_path / "cells" / CELLS[0]).mkdir(parents=True)
    (tmp_path / "cells" / CELLS[0] / "error.txt").write_bytes(b"\xff full\nmore")
    open_study(config(), tmp_path)
    assert run_study(config(action="report"), tmp_path, fake.trainer()) == {
        "failed": 1,
        "missing": 3,
    }
    assert read_results(tmp_path)[0]["reason"] == "\ufffd full"


def test_cells_fail_with_their_pretraining(tmp_path: Path, fake: FakeTrainer) -> None:
    def fail(id: str) -> None:
        if id == PRETRAIN:
            raise UserError("training broke down")

    fake.on_run = fail
    with pytest.raises(UserError, match="2 of 4 cells failed"):
        run_study(config(), tmp_path, fake.trainer())
    assert fake.runs.count(PRETRAIN) == 1
    reasons = {row["reason"] for row in read_results(tmp_path)}
    assert reasons == {"", f"{PRETRAIN}, which it starts from, failed: training broke down"}
    fake.on_run = lambda id: None
    assert run_study(config(), tmp_path, fake.trainer()) == {"done": 4}


def test_shares_do_all_cells_and_pretrain_once(tmp_path: Path, fake: FakeTrainer) -> None:
    for i in (3, 1, 4, 2):
        run_study(config(cells=f"{i}/4"), tmp_path, fake.trainer())
    assert sorted(fake.runs) == sorted([*CELLS, PRETRAIN])
    assert run_study(config(action="report"), tmp_path, fake.trainer()) == {"done": 4}
    assert len(fake.reports) == 5


def test_what_another_process_is_busy_with_is_left_to_it(tmp_path: Path, fake: FakeTrainer) -> None:
    asked = iter(range(20))

    def patience_ends(step: int) -> bool:
        return next(asked, None) is None

    with claimed(tmp_path / "claims" / PRETRAIN) as granted:
        assert granted
        assert run_study(config(), tmp_path, fake.trainer(patience_ends)) is None
    assert fake.runs == CELLS[:2]
    assert run_study(config(), tmp_path, fake.trainer()) == {"done": 4}
    assert fake.runs == [*CELLS[:2], PRETRAIN, *CELLS[2:]]


def test_trials_train_as_a_population(tmp_path: Path, fake: FakeTrainer) -> None:
    assert run_study(config(population=4), tmp_path, fake.trainer()) == {"done": 4}
    assert fake.populations == [CELLS[:2], CELLS[2:]]


def test_what_is_finished_does_not_join_a_population(tmp_path: Path, fake: FakeTrainer) -> None:
    run_study(config(cells="1/4"), tmp_path, fake.trainer())
    run_study(config(population=4), tmp_path, fake.trainer())
    assert fake.populations == [CELLS[2:]]
    assert fake.runs.count(CELLS[0]) == 1


def test_a_population_that_has_grown_does_not_go_on_from_states_of_others(
    tmp_path: Path, fake: FakeTrainer
) -> None:
    """Trials 1 and 3 were stopped: their states are not those of 1 and 2."""
    for trials in ((1, 3), (1, 2, 3), (1, 3)):
        grown = config(population=2)
        grown.study.update(trials=trials, strategies=())
        fake.stops_at = CELLS[0]
        run_study(grown, tmp_path, fake.trainer())
    one, other, again = fake.places
    assert one == again != other
    assert one.name.startswith(f"{CELLS[0]}-x2-") and other.name.startswith(f"{CELLS[0]}-x2-")


def test_members_that_are_done_are_done_where_others_of_the_population_fail(
    tmp_path: Path, fake: FakeTrainer
) -> None:
    def fail(id: str) -> None:
        if id == CELLS[1]:
            raise MembersFailed({tmp_path / "cells" / CELLS[1]: "it broke down"}, 2)

    fake.on_run = fail
    with pytest.raises(UserError, match=f"(?s)1 of 4 cells failed.*{CELLS[1]}: it broke down"):
        run_study(config(population=2), tmp_path, fake.trainer())
    rows = read_results(tmp_path)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
    assert rows[1]["reason"] == "it broke down"


def test_pre_trainings_on_all_there_is_are_done_once(
    tmp_path: Path, fake: FakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    """However many more labels are asked for; where one was begun, it is that one."""
    larger = config()
    larger.study.update(source_sizes=(32, 5000, 0, 6000), trials=(1,), scratch=False)
    assert run_study(larger, tmp_path, fake.trainer()) == {"done": 2}
    assert "5000 labels of piezoelectric are asked for" in (tmp_path / "log.txt").read_text()
    everything = PRETRAIN.replace("32", "5000")
    assert [id for id in fake.runs if id.startswith("pretrain")] == [PRETRAIN, everything]
    larger.study.source_sizes = (0, 32, 5000)
    before = list(fake.runs)
    assert run_study(larger, tmp_path, fake.trainer()) == {"done": 2} and fake.runs == before


def test_fits_in_closed_form_are_no_trainings(tmp_path: Path, fake: FakeTrainer) -> None:
    """Neither in what is left to do, nor in how fast trainings are."""
    fits = config()
    fits.study.update(strategies=("gaussian_process", "all_layers"), scratch=False, trials=(1,))
    opened = open_study(fits, tmp_path)
    lengths = {cell.strategy: run_length(opened, cell).steps for cell in opened.cells}
    assert lengths["gaussian_process"] == 0 < lengths["all_layers"]
    fit = next(cell for cell in opened.cells if cell.strategy == "gaussian_process")
    scratch = run_config(opened, fit._replace(source="", strategy=""))
    fake.run(scratch, tmp_path / fit.directory, None)
    assert measured_rates(opened) == {}


def test_a_dry_run_lists_and_estimates_and_writes_nothing(
    tmp_path: Path, fake: FakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    assert run_study(config(action="dry_run"), tmp_path / "new", fake.trainer()) == {"missing": 4}
    assert not fake.runs and not (tmp_path / "new").exists()
    for id in (*CELLS, PRETRAIN):
        assert id in caplog.text
    assert "4 cells of 4 and 1 pre-trainings" in caplog.text
    assert "one step timed now on this machine (cpu)" in caplog.text
    bounds = re.search(r"at least .*: (\S+) on one H100, (\S+) on one v5e\.", caplog.text)
    assert bounds and all(float(hours) > 0 for hours in bounds.groups())
    run_study(config(cells="1/2"), tmp_path, fake.trainer())
    assert (tmp_path / "log-1-of-2.txt").exists() and not (tmp_path / "log.txt").exists()
    caplog.clear()
    run_study(config(action="dry_run"), tmp_path, fake.trainer())
    # Two epochs of one batch of 16 took 10 s: so will the two cells and the pre-training of 28.
    assert "finished runs" in caplog.text and f"left to do: {30 / 3600:.2f} hours" in caplog.text


def test_a_dry_run_says_what_cannot_be_done(
    tmp_path: Path, fake: FakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    large = config(action="dry_run")
    large.study.target_sizes = (20, 5000)
    run_study(large, tmp_path, fake.trainer())
    assert "These cannot be done" in caplog.text
    assert caplog.text.count("5000 labels are asked for") == 4


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("job.action", "rerun", "dry_run"),
        ("protocol", "best", "published, published_multi_property, sound"),
        ("job.cells", "9/8", "job.cells"),
        ("data.tables", "nowhere", "nowhere"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, fake: FakeTrainer, field: str, value: str, message: str
) -> None:
    wrong = config()
    wrong.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        run_study(wrong, tmp_path, fake.trainer())
    assert not fake.runs
