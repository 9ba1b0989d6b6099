"""A file that has become another since a run began makes it another run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import CHOSEN, FOLDER, WEIGHTS
from jaxmat.bundles.means import Mean, write_mean
from jaxmat.data.reading import bundled_path
from jaxmat.errors import UserError
from jaxmat.experiments import carry_out, defaults
from jaxmat.experiments.inputs import input_files, keep_inputs, refuse_changed
from jaxmat.experiments.study.runs import open_study
from jaxmat.experiments.workdir import open_workdir, write_json
from jaxmat.training.checkpoints import Checkpoints

from .conftest import small_scratch

RESULT = {"test_mae": 1.0, "crystals": {"test": 3}}


def finished(workdir: Path, config: ConfigDict) -> None:
    """Makes the directory of a run that is done."""
    open_workdir(workdir, config)
    keep_inputs(workdir, input_files(config))
    write_json(workdir / "result.json", RESULT)


def test_a_table_that_has_changed_is_refused(tmp_path: Path) -> None:
    """The command of a finished run gave the old result again, whatever the labels were."""
    table, workdir = tmp_path / "t.csv", tmp_path / "run"
    table.write_text("file,gap\na.cif,1\n")
    config = small_scratch()
    config.data.path = str(table)
    finished(workdir, config)
    assert carry_out(config, workdir) == RESULT
    table.write_text("file,gap\na.cif,1\n")  # written again, the same
    assert carry_out(config, workdir) == RESULT
    table.write_text("file,gap\na.cif,1000\n")
    with pytest.raises(UserError, match=rf"changed since; (?s:.*)data\.path: {table}"):
        carry_out(config, workdir)
    table.unlink()  # nothing to compare with
    assert carry_out(config, workdir) == RESULT


def test_all_that_has_changed_is_named(tmp_path: Path) -> None:
    model, split, folder = tmp_path / "model", tmp_path / "split.json", tmp_path / "cgcnn"
    for place in (model, tmp_path / "run" / FOLDER, folder):
        place.mkdir(parents=True)
    files = {
        "data.path": folder / "id_prop.csv",
        "data.split": split,
        f"start_from {model}": model / WEIGHTS,
        f"start_from {tmp_path / 'run'}": tmp_path / "run" / FOLDER / WEIGHTS,
    }
    for file in files.values():
        file.write_text("before")
    data = {"path": str(folder), "split": str(split)}
    config = ConfigDict(
        {"data": data, "start_from": str(model), "candidates": (f"{tmp_path}/run",)}
    )
    assert input_files(config) == {name: str(file) for name, file in files.items()}
    finished(tmp_path / "done", config)
    for file in files.values():
        file.write_text("after")
    with pytest.raises(UserError) as refusal:
        refuse_changed(tmp_path / "done", input_files(config))
    assert all(f"{name}: {file}" in str(refusal.value) for name, file in files.items())


def test_a_weighted_mean_that_has_changed_is_refused(tmp_path: Path) -> None:
    """An evaluation gave the error of the models that were there before."""
    choice = tmp_path / "choice"
    members = [choice / CHOSEN / f"member_{i}" for i in range(2)]
    for member in members:
        (member / FOLDER).mkdir(parents=True)
        (member / FOLDER / WEIGHTS).write_text("before")
    write_mean(choice / CHOSEN, Mean([member.name for member in members], [0.5, 0.5], {}))
    config = ConfigDict({"start_from": str(choice)})
    finished(tmp_path / "done", config)
    refuse_changed(tmp_path / "done", input_files(config))
    (members[1] / FOLDER / WEIGHTS).write_text("after")
    with pytest.raises(UserError, match=rf"changed since; (?s:.*)start_from {members[1]}: "):
        refuse_changed(tmp_path / "done", input_files(config))
    (members[1] / FOLDER / WEIGHTS).write_text("before")
    write_mean(choice / CHOSEN, Mean([member.name for member in members], [0.6, 0.4], {}))
    with pytest.raises(UserError, match=rf"changed since; (?s:.*)start_from {choice}: "):
        refuse_changed(tmp_path / "done", input_files(config))


def test_a_checkpoint_that_has_changed_is_refused(tmp_path: Path) -> None:
    """As where the model to start from was trained on in the meantime."""
    source = tmp_path / "source"
    config = ConfigDict({"start_from": str(source)})
    assert input_files(config) == {}
    for step in (1, 2):
        source.mkdir(exist_ok=True)
        checkpoints = Checkpoints(source, {})
        checkpoints.keep_best({"params": {"w": np.full(2, step)}}, step, 0.5)
        checkpoints.finish()
        if step == 1:
            finished(tmp_path / "done", config)
            refuse_changed(tmp_path / "done", input_files(config))
    with pytest.raises(UserError, match=rf"changed since; (?s:.*)start_from {source}: .*best/2"):
        refuse_changed(tmp_path / "done", input_files(config))


def test_what_comes_with_the_package_is_not_compared() -> None:
    shipped = {"data": {"path": "bundled:dielectric"}, "start_from": "all_six"}
    assert input_files(ConfigDict(shipped)) == {}


def test_a_run_that_has_done_nothing_may_begin_with_other_files(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a")
    files = {"data.path": str(table)}
    for text in "ab":
        table.write_text(text)
        refuse_changed(tmp_path, files)
        keep_inputs(tmp_path, files)
    write_json(tmp_path / "result.json", RESULT)
    refuse_changed(tmp_path, files)
    table.write_text("a")
    keep_inputs(tmp_path, files)  # what was done was done with b
    with pytest.raises(UserError, match="changed since"):
        refuse_changed(tmp_path, files)


def test_a_study_whose_table_has_changed_is_refused(tmp_path: Path) -> None:
    """Its finished cells were kept, and the others trained on the new labels."""
    tables = tmp_path / "tables"
    (tables / "splits").mkdir(parents=True)
    with gzip.open(bundled_path("dielectric")) as stream:
        content = json.load(stream)
    content["index"], content["data"] = content["index"][:60], content["data"][:60]
    (tables / "dielectric.json").write_text(json.dumps(content))
    about = {"target_column": "poly_total", "unit": "1"}
    (tables / "splits" / "dielectric.json").write_text(json.dumps(about))
    axes = {"sources": (), "targets": ("dielectric",), "target_sizes": (20,), "trials": (1,)}
    config = defaults.study("a title", **axes)
    config.data.tables = str(tables)
    workdir = tmp_path / "study"
    open_study(config, workdir)
    cell = workdir / "cells" / "one"
    cell.mkdir(parents=True)
    write_json(cell / "result.json", RESULT)
    open_study(config, workdir)
    for row in content["data"]:
        row[1] = 7
    (tables / "dielectric.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the table dielectric: .*dielectric\.json"):
        open_study(config, workdir)
