"""Which crystals a run sees: the authors' lists to the letter, or drawn and reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.cells import Cell, Pretraining
from jaxmat.experiments.study.runs import Study, open_study, run_config
from jaxmat.experiments.study.samples import (
    Samples,
    finetuning_split,
    has_heavy_tail,
    pretraining_split,
    read_samples,
)
from jaxmat.experiments.study.tables import find_tables

N = 60
# As the authors' files have it: ids out of order, samples not nested, sizes as JSON keys.
LISTS: dict[str, Any] = {
    "target_column": "hardness",
    "unit": "GPa",
    "test": [159, 103, 131, 120, 110, 142],
    "trials": {
        "1": {"10": [101, 158, 104, 157, 106, 155, 108, 153, 112, 150]},
        "2": {"10": [150, 101, 111, 113, 115, 117, 119, 121, 123, 125]},
    },
    "n_train_val": {"10": [9, 1], "20": [15, 5]},
}


def write_folder(folder: Path, **lists: Any) -> Path:
    """A table of N crystals with the index 100, 101, ... and material ids that are not it."""
    structure = {
        "@class": "Structure",
        "lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]},
        "sites": [{"species": [{"element": "Si", "occu": 1}], "abc": [0, 0, 0]}],
    }
    content = {
        "index": list(range(100, 100 + N)),
        "columns": ["structure", "hardness", "material_id"],
        "data": [[structure, float(np.exp(i / 5)), f"mp-{i}"] for i in range(N)],
    }
    (folder / "splits").mkdir(parents=True)
    (folder / "hard.json").write_text(json.dumps(content))
    (folder / "splits" / "hard.json").write_text(json.dumps(LISTS | lists))
    return folder


def samples(folder: Path, **lists: Any) -> Samples:
    tables = find_tables(str(write_folder(folder, **lists)))
    assert list(tables) == ["hard"]
    return read_samples(tables["hard"], defaults.study("a title").data)


def config_of(folder: Path, **study: Any) -> ConfigDict:
    axes = {"strategies": (), "target_sizes": (10,), "trials": (1, 2)}
    config = defaults.study("a title", **axes | study)
    config.data.tables = str(folder)
    return config


@pytest.mark.parametrize("protocol", ["published", "sound"])
def test_runs_see_the_authors_lists_in_their_order(tmp_path: Path, protocol: str) -> None:
    config = config_of(write_folder(tmp_path / "data"))
    config.protocol = protocol
    study = open_study(config, tmp_path / "study")
    for trial, sizes in LISTS["trials"].items():
        run = run_config(study, Cell("", 0, "hard", 10, "", 1e-3, int(trial), 0))
        split = json.loads(Path(run.data.split).read_text())
        assert split == {
            "train": [str(id) for id in sizes["10"][:9]],
            "validation": [str(id) for id in sizes["10"][9:]],
            "test": [str(id) for id in LISTS["test"]],
        }
        assert (run.data.target, run.data.unit, run.data.id_column) == ("hardness", "GPa", "")
        assert run.data.scaling_labels == {"published": "all", "sound": "training"}[protocol]
        assert run.data.log == (protocol == "sound")


def test_what_is_not_listed_is_drawn_from_the_pool(tmp_path: Path) -> None:
    found = samples(tmp_path)
    assert set(found.pool) | set(found.test) == {str(100 + i) for i in range(N)}
    one, again, other = (finetuning_split(found, 20, trial) for trial in (3, 3, 4))
    assert one == again != other
    assert {part: len(ids) for part, ids in one.items()} == {
        "train": 15,
        "validation": 5,
        "test": 6,
    }
    for split in (one, other, pretraining_split(found, 30, 0)):
        used = [id for ids in split.values() for id in ids]
        assert len(used) == len(set(used))
        assert split["test"] == found.test
    assert len(finetuning_split(found, 30, 3)["validation"]) == 3


@pytest.mark.parametrize(("size", "labels"), [(30, 30), (0, 54), (941, 54)])
def test_a_pretraining_takes_what_the_pool_has(tmp_path: Path, size: int, labels: int) -> None:
    split = pretraining_split(samples(tmp_path), size, 0)
    assert len(split["train"]) + len(split["validation"]) == labels


def test_a_listed_pretraining_set_is_taken_whole(tmp_path: Path) -> None:
    """Even where it holds test crystals, on which nothing is then tested."""
    ids = [*range(100, 115), *LISTS["test"]]
    ids = list(dict.fromkeys(ids))
    found = samples(tmp_path, other_lists={f"hard_{len(ids)}_std_clean.json": ids})
    split = pretraining_split(found, len(ids), 5)
    assert split["train"] + split["validation"] == [str(id) for id in ids]
    assert split["test"] and not set(split["test"]) & {str(id) for id in ids}


def test_without_their_structures_other_crystals_are_tested(tmp_path: Path) -> None:
    found = samples(tmp_path, test=[900, 901])
    named = {str(id) for sizes in LISTS["trials"].values() for id in sizes["10"]}
    assert set(found.test) == {str(100 + i) for i in range(N)} - named
    assert finetuning_split(found, 10, 1)["test"] == found.test


def test_a_bundled_table_is_drawn() -> None:
    config = defaults.study("a title").data
    config.max_sites = 3
    found = read_samples(find_tables("bundled")["dielectric"], config)
    assert found.heavy_tail
    assert len(found.test) == (len(found.pool) + len(found.test)) // 10
    assert all(id.isdigit() for id in found.test)


@pytest.mark.parametrize(
    ("labels", "heavy"),
    [
        (np.exp(np.linspace(0, 9, 200)), True),
        (np.linspace(1, 2, 200), False),
        (np.exp(-np.exp(np.linspace(0, 2, 200))), False),
        (np.ones(50), False),
    ],
)
def test_heavy_tails(labels: np.ndarray, heavy: bool) -> None:
    assert has_heavy_tail(labels) == heavy


def test_more_labels_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="55 labels are asked for, but .* has 54"):
        finetuning_split(samples(tmp_path), 55, 1)


@pytest.mark.parametrize("id", [999, 159])
def test_listed_crystals_that_cannot_be_trained_on_are_named(tmp_path: Path, id: int) -> None:
    found = samples(tmp_path, trials={"1": {"10": [id, *range(101, 110)]}})
    with pytest.raises(UserError, match=f"(?s)hard: .*{id}"):
        finetuning_split(found, 10, 1)


def test_crystals_that_are_listed_twice(tmp_path: Path) -> None:
    lists = {"test": [159, 103, 159], "trials": {"1": {"10": [101, 102, 101]}}}
    found = samples(tmp_path, **lists)
    assert found.test == ["159", "103"]
    with pytest.raises(UserError, match=r"(?s)hard: .*twice.*101$"):
        finetuning_split(found, 10, 1)


def test_lists_of_another_number_of_labels_are_told(tmp_path: Path) -> None:
    lists = {"1": {"10": [101, 102, 104]}, "2": LISTS["trials"]["2"]}
    config = config_of(write_folder(tmp_path / "data", trials=lists))
    (remark,) = open_study(config, tmp_path / "study").remarks
    assert "hard" in remark and "10 labels of trial 1 have 3" in remark


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "hard.json cannot be read: no JSON at line 1"),
        ('{"unit": "GPa"}', "expected .*target_column"),
        ('{"unit": "GPa", "target_column": "hardness", "test": {}}', "test"),
        ('{"unit": "GPa", "target_column": "hardness", "trials": {"1": [1]}}', "trials"),
        ('{"unit": "GPa", "target_column": "hardness", "n_train_val": {"10": 9}}', "n_train_val"),
        ('{"unit": "GPa", "target_column": "hardness", "n_train_val": {"9": ["a", 1]}}', "whole"),
        ('{"unit": "GPa", "target_column": "hardness", "n_train_val": {"9": [9, 0]}}', "1 or more"),
        ('{"unit": "", "target_column": "hardness"}', 'unit .*"1" where there is none'),
    ],
)
def test_a_splits_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "splits" / "hard.json").write_text(text)
    with pytest.raises(UserError, match=message):
        find_tables(str(tmp_path))


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere has no table NAME"):
        find_tables(str(tmp_path / "nowhere"))


def test_tables_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(write_folder(tmp_path / "data"))
    first = open_study(config, tmp_path / "study")
    monkeypatch.setattr("jaxmat.experiments.study.runs.read_samples", None)
    second: Study = open_study(config, tmp_path / "study")
    assert first.samples == second.samples


def test_before_anything_is_trained_tables_and_lists_may_change(tmp_path: Path) -> None:
    """What is kept of the table as it was before would be trained on."""
    data = write_folder(tmp_path / "data")
    config, workdir = config_of(data), tmp_path / "study"
    open_study(config, workdir)
    content = json.loads((data / "hard.json").read_text())
    content |= {"index": content["index"][:-5], "data": content["data"][:-5]}
    (data / "hard.json").write_text(json.dumps(content))
    assert "159" not in open_study(config, workdir).samples["hard"].test
    (data / "splits" / "hard.json").write_text(json.dumps(LISTS | {"test": [103]}))
    assert open_study(config, workdir).samples["hard"].test == ["103"]


def begun(folder: Path, workdir: Path) -> Study:
    """A study in which trial 1 is done."""
    study = open_study(config_of(folder), workdir)
    (cell,) = (cell for cell in study.cells if cell.trial == 1)
    run_config(study, cell)
    (workdir / cell.directory).mkdir(parents=True)
    result = {"property": "hardness", "crystals": {}}
    (workdir / cell.directory / "result.json").write_text(json.dumps(result))
    return study


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"test": LISTS["test"][1:]}, "other test crystals"),
        ({"trials": {"1": {"10": [*range(143, 153)]}}}, r"hard\.json gives now.*\n.*-t1-s0$"),
        ({"n_train_val": {"10": [8, 2]}}, r"hard\.json gives now.*\n.*-t1-s0$"),
        ({"target_column": "softness"}, r"another column.*\n.*-t1-s0$"),
    ],
)
def test_lists_that_have_changed_since_they_were_used_are_refused(
    tmp_path: Path, lists: dict[str, Any], message: str
) -> None:
    """Finished cells would stand beside others that were trained or tested on other crystals."""
    data = write_folder(tmp_path / "data")
    content = json.loads((data / "hard.json").read_text())
    content["columns"].append("softness")
    content["data"] = [[*row, row[1]] for row in content["data"]]
    (data / "hard.json").write_text(json.dumps(content))
    begun(data, tmp_path / "study")
    (data / "splits" / "hard.json").write_text(json.dumps(LISTS | lists))
    with pytest.raises(UserError, match=message):
        open_study(config_of(data), tmp_path / "study")


def test_lists_that_no_run_has_used_may_change(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    before = begun(data, tmp_path / "study")
    more = {"2": {"10": [*range(143, 153)]}, "3": {"10": [*range(144, 154)]}}
    changed = LISTS | {"trials": LISTS["trials"] | more}
    (data / "splits" / "hard.json").write_text(json.dumps(changed))
    after = open_study(config_of(data), tmp_path / "study").samples["hard"]
    assert after.pool == before.samples["hard"].pool
    assert finetuning_split(after, 10, 2)["train"][0] == "143"


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": 1}'])
def test_what_is_kept_of_a_table_is_made_again_where_it_is_damaged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, workdir = write_folder(tmp_path / "data"), tmp_path / "study"
    before = begun(data, workdir)
    (workdir / "tables" / "hard.json").write_text(damage)
    assert open_study(config_of(data), workdir).samples == before.samples
    assert "hard.json" in caplog.text and "made again" in caplog.text


def test_a_pretraining_knows_its_config(tmp_path: Path) -> None:
    config = config_of(write_folder(tmp_path / "data"))
    config.protocol = "published"
    study = open_study(config, tmp_path / "study")
    run = run_config(study, Pretraining("hard", 30, 4))
    assert (run.experiment, run.seed) == ("pretrain", 4)
    assert run.graph.neighbor_rule == "reference"
    assert (run.training.learning_rate, run.training.epochs) == (1e-4, 500)
