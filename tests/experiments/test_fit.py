"""Training from Python: the same as with files, from whatever holds crystals, and it can stop."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import IStructure, Lattice, Molecule, Structure

import jaxmat
from jaxmat import experiments
from jaxmat.crystals.objects import as_structure
from jaxmat.data.contents import Contents
from jaxmat.data.tables import Table, read_table
from jaxmat.errors import UserError
from jaxmat.experiments.fit import _keep_start
from jaxmat.report.predictions import read_predictions
from jaxmat.runtime import stopping
from jaxmat.runtime.caches import cache_folder

from .conftest import small_scratch

SMALL = {"network.trunk.width": 16, "network.trunk.layers": 1}
QUICK = {
    **{"data.n_train": 16, "data.n_validation": 12, "data.n_test": 8, "data.max_sites": 8},
    **{"training.epochs": 2, "training.save_every": 1, "training.max_shapes": 1},
}


class Frame:
    """What is used of a data frame of pandas."""

    def __init__(self, index=None, **columns):
        self.columns, self._columns = list(columns), columns
        if index is not None:
            self.index = index

    def __getitem__(self, name):
        return self._columns[name]


@pytest.fixture(scope="module")
def crystals() -> tuple[list[Structure], list[float]]:
    table = read_table("bundled:piezoelectric")
    small = [i for i, structure in enumerate(table.structures) if len(structure) <= 8][:40]
    return [table.structures[i] for i in small], table.column("eij_max")[small].tolist()


def as_ase(structure: Structure) -> Atoms:
    return Atoms(
        [site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
        pbc=True,
    )


def assert_same(one, other):
    for a, b in zip(
        jax.tree.leaves(one.bundle.variables), jax.tree.leaves(other.bundle.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """What was logged while `scratch` was trained."""
    return []


@pytest.fixture(scope="module")
def scratch(crystals, messages) -> jaxmat.TrainedModel:
    settings = SMALL | QUICK | {"seed": np.int64(0), "training.patience": np.int32(0)}
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("jaxmat").addHandler(handler)
    try:
        return jaxmat.fit(*crystals, unit="C/m^2", name="eij", start_from=None, config=settings)
    finally:
        logging.getLogger("jaxmat").removeHandler(handler)


@pytest.fixture(scope="module")
def seen(crystals, scratch) -> list[Structure]:
    """Three crystals of elements that the model knows."""
    elements = set(scratch.bundle.about["elements"])
    return [one for one in crystals[0] if set(one.symbol_set) <= elements][:3]


def test_a_model_predicts_and_can_be_kept(scratch, seen, tmp_path):
    assert scratch.units == {"eij": "C/m^2"} and scratch.metrics["test_mae"] > 0
    assert "eij (C/m^2): trained from random weights" in repr(scratch)
    rows = scratch.predict(seen)
    assert [row.id for row in rows] == ["0", "1", "2"]
    for row in rows:
        assert (row.property, row.unit, row.reason) == ("eij", "C/m^2", "")
        assert row.low < row.prediction < row.high
        assert row.uncertainty == pytest.approx((row.high - row.low) / 2)
    scratch.save(tmp_path / "model")
    loaded = jaxmat.load(tmp_path / "model")
    assert_same(scratch, loaded)
    assert loaded.predict(seen) == rows
    assert loaded.bundle.about == scratch.bundle.about
    assert scratch.bundle.about["data"]["path"] == "crystals in memory"


def test_nothing_is_left_in_the_cache_nor_named(scratch, messages):
    assert not list(cache_folder("fits").glob("*"))
    said = "\n".join(messages)
    assert "eij: test MAE" in said and "report.html" not in said
    assert str(cache_folder("fits")) not in messages[-1]


def test_it_is_what_the_command_does_with_the_table(crystals, tmp_path, scratch):
    """Its table is a table for the command, which makes the same network of it."""
    index = [f"m{i}" for i in range(40)]
    frame = Frame(index=index, structure=crystals[0], eij=crystals[1])
    workdir, fields = (
        tmp_path / "fit",
        {"unit": "C/m^2", "start_from": None, "config": SMALL | QUICK},
    )
    model = jaxmat.fit(frame, "eij", workdir=workdir, **fields)
    config = small_scratch()
    config.update_from_flattened_dict(SMALL | QUICK)
    config.data.update(path=str(workdir / "table.json"), target="eij", unit="C/m^2")
    result = experiments.run(config, tmp_path / "command")
    assert_same(jaxmat.load(tmp_path / "command"), model)
    assert result["test_mae"] == model.metrics["test_mae"]
    assert {row.id for row in read_predictions(workdir / "predictions.csv")} <= set(index)
    before = (workdir / "result.json").stat().st_mtime_ns
    assert_same(jaxmat.fit(frame, "eij", workdir=workdir, **fields), model)
    assert (workdir / "result.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds a run on other crystals or labels"):
        jaxmat.fit(crystals[0], [1.0, *crystals[1][1:]], "C/m^2", workdir=workdir)


def test_it_starts_from_a_model_and_takes_every_kind_of_crystal(scratch, crystals):
    structures, labels = crystals
    kinds = [IStructure.from_sites(structures[0]), as_ase(structures[1]), *structures[2:]]
    labels = [None, float("nan"), *labels[2:]]
    model = jaxmat.fit(kinds, labels, unit="C/m^2", start_from=scratch, config=QUICK)
    assert model.bundle.about["source"].startswith(
        "fine-tuned from a model that was trained from random weights"
    )
    assert set(scratch.bundle.about["elements"]) <= set(model.bundle.about["elements"])
    assert list(model.units) == ["property"]


def test_another_model_to_start_from_needs_another_workdir(scratch, tmp_path):
    """The model that an earlier call had started from was taken, in silence."""
    _keep_start(tmp_path / "start_from", scratch)
    _keep_start(tmp_path / "start_from", scratch)
    with pytest.raises(UserError, match="starts from another model: give another workdir"):
        _keep_start(tmp_path / "start_from", jaxmat.load("no_dielectric"))


def test_every_kind_of_crystal_is_the_same_crystal(scratch, seen):
    structure = seen[0]
    kinds = [structure, IStructure.from_sites(structure), as_ase(structure)]
    rows = scratch.predict(kinds)
    assert [row.reason for row in rows] == ["", "", ""]
    np.testing.assert_allclose([row.prediction for row in rows], rows[0].prediction, rtol=1e-5)
    for one in kinds[1:]:
        assert scratch.predict(one)[0].prediction == pytest.approx(rows[0].prediction, rel=1e-5)


def test_crystals_that_have_names_keep_them(scratch, seen):
    """A data frame was read as the paths of its columns, a series was numbered."""
    names, crystals = ["mp-5", "mp-6"], seen[:2]
    frame = Frame(index=names, structure=crystals, relaxed=crystals)
    rows = scratch.predict(frame)
    assert [row.id for row in rows] == names and not any(row.reason for row in rows)
    assert scratch.predict(frame, "relaxed") == rows
    assert scratch.predict(dict(zip(names, crystals, strict=True))) == rows
    twice = Frame(index=["a", "a"], structure=crystals)
    assert [row.id for row in scratch.predict(twice)] == ["0", "1"]
    with pytest.raises(UserError, match="no column 'structure'; did you mean structures"):
        scratch.predict(Frame(structures=crystals))
    with pytest.raises(UserError, match="1 of 2 rows hold no crystal, the first of them 'mp-6'"):
        scratch.predict(dict(zip(names, [crystals[0], "a.cif"], strict=True)))


def test_names_of_columns_need_not_be_text_but_different(scratch, seen):
    frame = Frame()
    frame.columns, frame._columns = [0, 1], {0: seen, 1: [1.0, 2.0, 3.0]}
    expected = scratch.predict(seen)
    assert scratch.predict(frame, structure_column="0") == expected
    assert scratch.predict(frame, structure_column=0) == expected
    frame.columns = [0, 0]
    with pytest.raises(UserError, match="has 2 columns '0'; give them different names"):
        scratch.predict(frame, structure_column="0")


def test_what_is_no_crystal_has_a_reason(scratch, seen):
    bad = [Molecule(["H"], [[0, 0, 0]]), 3, Atoms("H"), Atoms("H", pbc=True)]
    rows = scratch.predict([*bad, seen[0]])
    reasons = ["Molecule is not a crystal", "int is not a crystal", "pbc", "no cell with a volume"]
    for row, reason in zip(rows, reasons, strict=False):
        assert reason in row.reason
    assert not rows[-1].reason
    with pytest.raises(UserError, match="not a crystal"):
        as_structure(None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_stopped_fit_goes_on_as_if_it_had_not_been_stopped(
    crystals, scratch, monkeypatch, number, tmp_path
):
    """In a folder of its own or a given one; the signal is passed on."""
    received = []
    monkeypatch.setattr(stopping.os, "write", lambda *_: None)
    before = signal.signal(signal.SIGUSR1, lambda n, _: received.append(n))
    call = stopping.Stop.__call__

    def stop_at_first(self, step):
        if step == 1:
            os.kill(os.getpid(), number)
        return call(self, step)

    fields = {"unit": "C/m^2", "start_from": None, "name": "eij", "config": SMALL | QUICK}
    workdir = tmp_path if number == signal.SIGUSR1 else None
    try:
        with monkeypatch.context() as patch:
            patch.setattr(stopping.Stop, "__call__", stop_at_first)
            with pytest.raises(KeyboardInterrupt) as stopped:
                jaxmat.fit(*crystals, workdir=workdir, **fields)
        assert received == [number] * (number == signal.SIGUSR1)
        (note,) = stopped.value.__notes__
        folder = Path(note.split("workdir=")[1].strip("'"))
        assert (folder / "checkpoints").is_dir() and not (folder / "result.json").exists()
        assert (folder == tmp_path) == (workdir is not None)
        assert_same(jaxmat.fit(*crystals, workdir=folder, **fields), scratch)
    finally:
        signal.signal(signal.SIGUSR1, before)
        shutil.rmtree(cache_folder("fits"), ignore_errors=True)  # none where a folder was given


CUBE = Structure(Lattice.cubic(4), ["Na"], [[0, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([CUBE], [1.0, 2.0], "eV"), "Got 1 structure and 2 labels: give a label for each"),
        (([], [], "eV"), "Got 0 structures and 0 labels"),
        ((CUBE, [1.0], "eV"), "Give a list of structures"),
        (("table.csv", "gap", "eV"), "names a column, but structures is not a data frame"),
        (([CUBE, 3, None], [1.0, 2.0, 3.0], "eV"), "(?s)2 rows.* 1: .*int.* 2: .*NoneType"),
        (
            ([CUBE] * 3, [1.0, "much", np.inf], "eV"),
            "(?s)2 rows.*'much' is not a.*inf is not a finite",
        ),
        (
            ([CUBE] * 3, ["1_0", True, "１"], "eV"),
            "(?s)3 rows.*'1_0' is no.*True is no.*'１' is no",
        ),
        ((Frame(structure=[CUBE], gap=[1.0]), "gpa", "eV"), r"no column 'gpa'; did you mean gap\?"),
        ((Frame(structures=[CUBE], gap=[1.0]), "gap", "eV"), "did you mean structures"),
        ((Frame(structure=[CUBE], gap=[1.0]), [1.0], "eV"), "give the name of its column"),
        (([CUBE], Frame(gap=[1.0]), "eV"), "labels is a data frame: give one column"),
        (([CUBE], [1.0], " "), "unit is ' ': give the unit of the labels as text"),
        (([CUBE], [1.0], 1), "unit is 1: give the unit of the labels as text"),
        (([CUBE], 1.0, "eV"), "labels is 1.0: give a list, a number for each structure"),
        (([CUBE], None, "eV"), "labels is None: give a list"),
        (({"a": CUBE}, {"a": 1.0}, "eV"), r"structures is a dict: give list\(structures.values"),
        ((Frame(crystal=[CUBE], gap=[1.0]), "gap", "eV"), "right one with structure_column=NAME"),
        ((Table("t", (), Contents.of([]), {}), "gap", "eV"), "a table of jaxmat, no data frame"),
        (([CUBE] * 2, [1.0, 2.0], "eV"), "from 2 rows with labels; at least one is needed to"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        jaxmat.fit(*arguments, workdir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("structure", "cannot be called 'structure'"), ("%", "No name can be made of the column '%'")],
)
def test_names_that_name_nothing_are_refused(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        jaxmat.fit([CUBE] * 4, [1.0, 2.0, 3.0, 4.0], "eV", name=name, workdir=tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"training.epocs": 3}, r"did you mean training\.epochs"),
        ({"training.epochs": "many"}, r"config\.training\.epochs"),
        ({"data.path": "x"}, r"data\.path cannot be set"),
        ({"population": 2}, "population has to be 1"),
        ({"training": {"epochs": 3}}, "config.training is a part .* such as 'training.a"),
    ],
)
def test_mistakes_in_the_config_are_named(config, message):
    with pytest.raises(UserError, match=message):
        jaxmat.fit([CUBE], [1.0], "eV", config=config)
    assert not list(cache_folder("fits").glob("*"))


def test_the_package_exports_what_it_says():
    assert set(jaxmat.__all__) <= set(dir(jaxmat))
    assert all(getattr(jaxmat, name) for name in jaxmat.__all__)
    stub = Path(jaxmat.__file__).with_suffix(".pyi").read_text()
    assert all(f" {name}" in stub for name in jaxmat.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        _ = jaxmat.fti
