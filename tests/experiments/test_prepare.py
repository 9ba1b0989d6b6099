"""All that is wrong with data is told at once, before anything is trained."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Lattice, Structure

from jaxmat.bundles.predict import predict
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, prepare, run

SETTINGS = GraphSettings()
SI = Structure(Lattice.cubic(4.0), ["Si"], [[0, 0, 0]])
BAD = {
    "overlap": Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0.001, 0, 0]]),
    "disorder": Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]),
    "coordinates": Structure(Lattice.cubic(4), ["H"], [[math.nan, 0, 0]]),
    "lattice": Structure(Lattice([[1, 0, 0], [1e5, 2, 0], [0, 0, 2]]), ["H"], [[0, 0, 0]]),
    "density": Structure(Lattice.cubic(0.5), ["H"], [[0, 0, 0]]),
    "element": Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]]),
    "unreadable": None,
}


def ordinary(number: int) -> list[Structure]:
    return [SI.copy().scale_lattice(60 + 3 * i) for i in range(number)]


def data_config(
    folder: Path, structures: list[Structure | None], labels: list[Any], **fields: Any
) -> ConfigDict:
    """Writes a table with ids c0, c1, ... and returns `data` of a config for it."""
    crystals = [None if structure is None else structure.as_dict() for structure in structures]
    content = {
        "index": [f"c{i}" for i in range(len(crystals))],
        "columns": ["structure", "hardness"],
        "data": [[crystal, label] for crystal, label in zip(crystals, labels, strict=True)],
    }
    (folder / "t.json").write_text(json.dumps(content))
    config = defaults.data(path=str(folder / "t.json"), target="hardness", unit="GPa")
    config.update(n_validation=2, n_test=2, **fields)
    return config


def rejected_rows(folder: Path) -> dict[str, str]:
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        return {row["id"]: row["reason"] for row in csv.DictReader(stream)}


def test_all_is_told_at_once(tmp_path: Path) -> None:
    """Structures, labels, split and unit are wrong, and every one of these is in the message."""
    structures = [*ordinary(10), *BAD.values()]
    labels: list[Any] = [*range(len(structures))]
    labels[4] = "soft"
    config = data_config(tmp_path, structures, labels, n_train=500)
    known = {"hardness": TargetTransform("hardness", "kbar", False, 0.0, 1.0)}
    with pytest.raises(UserError) as error:
        prepare.prepare(config, 0, SETTINGS, tmp_path, known)
    message = str(error.value)
    for told in (
        "row c4 has 'soft'",
        "7 of 17 rows cannot be used",
        "More than the fraction 0.01",
        "cannot draw 500 training",
        "config.data.unit is GPa, but the checkpoint predicts hardness in kbar",
        *(f"  {kind}: 1 (c" for kind in BAD),
    ):
        assert told in message
    found = rejected_rows(tmp_path)
    assert list(found) == [f"c{i}" for i in range(10, 17)]
    assert [reason.partition(":")[0] for reason in found.values()] == list(BAD)


def test_bad_rows_are_skipped_where_that_is_allowed(tmp_path: Path, caplog) -> None:
    structures = [*ordinary(10), BAD["overlap"], BAD["density"], BAD["density"]]
    labels = [*range(8), None, "na", 10, 11, ""]
    config = data_config(tmp_path, structures, labels, max_rejected_fraction=0.5)
    prepared = prepare.prepare(config, 0, SETTINGS, tmp_path)
    used = {id for ids in prepared.ids.values() for id in ids}
    assert used == {f"c{i}" for i in range(8)}  # those without a label are no rows of the run
    assert list(rejected_rows(tmp_path)) == ["c10", "c11"]
    assert "2 of 10 rows cannot be used" in caplog.text
    assert "overlap: 1 (c10)" in caplog.text and "density: 1 (c11)" in caplog.text


def a_frame(edge: float, label: str = "hardness=1.5") -> str:
    return f'1\nLattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" {label}\nSi 0 0 0\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "c0,1.5,x\nc1,2.5\nc2,3.5,y\n", "2 cells, the header has 3"),
        ("t.csv", "c0,1.5,x\nc1,2,5,x\nc2,3.5,y\n", "4 cells, the header has 3"),
        ("t.xyz", a_frame(4) + a_frame(5, 'hardness="2') + a_frame(6), 'a " without its "'),
        ("t.json", ["a", 1], "expected a list of 3 values"),
        ("records.json", 7, "expected a record, found "),
    ],
)
def test_rows_whose_cells_cannot_be_told_are_not_lost(
    tmp_path: Path, name: str, text: Any, reason: str
) -> None:
    """They may have had a label."""
    if name == "t.csv":
        for i in range(3):
            SI.to(str(tmp_path / f"c{i}.cif"))
        text = "file,hardness,note\n" + text
    elif name == "t.json":
        rows = [[SI.as_dict(), 1, ""], text, [SI.as_dict(), 2, ""]]
        columns = ["structure", "hardness", "note"]
        text = json.dumps({"index": ["a", "b", "c"], "columns": columns, "data": rows})
    elif name == "records.json":
        record = {"structure": SI.as_dict(), "hardness": 1}
        text = json.dumps([record, text, record])
    (tmp_path / name).write_text(text)
    path = str(tmp_path / name)
    config = defaults.data(path=path, target="hardness", unit="GPa")
    with pytest.raises(UserError, match="1 of 3 rows cannot be used"):
        prepare.prepare(config, 0, SETTINGS, tmp_path)
    assert [reason in told for told in rejected_rows(tmp_path).values()] == [True]


def test_frames_after_one_with_a_wrong_count_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "t.xyz").write_text(a_frame(4) + a_frame(5) + "Si 1 1 1\n" + a_frame(6))
    config = defaults.data(path=str(tmp_path / "t.xyz"), target="hardness", unit="GPa")
    with pytest.raises(UserError, match="frame 2: expected a number of atoms, found 'Si 1 1 1"):
        prepare.prepare(config, 0, SETTINGS)


@pytest.mark.parametrize(
    ("column", "ids", "field", "told"),
    [
        ("material_id", ["a", "b", "a", "c"], "material_id", "some appear more than once .a."),
        ("material_id", ["a", None, "b", "c"], "material_id", "none in 1 row .1."),
        ("code", ["a", "b", "a", "c"], "code", "some appear more than once .a."),
        ("code", ["a", "b", "d", "c"], "cod", "no column 'cod' .*; columns: code, hardness"),
    ],
)
def test_ids_that_cannot_be_used_are_refused(
    tmp_path: Path, column: str, ids: list[Any], field: str, told: str
) -> None:
    records = [{"structure": SI.as_dict(), column: id, "hardness": 1} for id in ids]
    (tmp_path / "t.json").write_text(json.dumps(records))
    config = defaults.data(path=str(tmp_path / "t.json"), target="hardness", unit="GPa")
    config.id_column = field
    with pytest.raises(UserError, match=told):
        prepare.read_labelled(config)


def test_ids_that_nobody_asked_for_and_cannot_be_used_are_remarked(tmp_path: Path, caplog) -> None:
    ids = ["a", "a", "b", "c"]
    records = [{"structure": SI.as_dict(), "id": id, "hardness": 1} for id in ids]
    (tmp_path / "t.json").write_text(json.dumps(records))
    config = defaults.data(path=str(tmp_path / "t.json"), target="hardness", unit="GPa")
    assert prepare.read_labelled(config).file_ids == ("0", "1", "2", "3")
    assert "ids are not used: some appear more than once (a)" in caplog.text


def test_infinite_labels_are_refused(tmp_path: Path) -> None:
    config = data_config(tmp_path, ordinary(6), [1, 2, math.inf, 4, -math.inf, 6])
    with pytest.raises(UserError, match="(?s)infinite.*row c2 has inf.*row c4 has -inf"):
        prepare.read_labelled(config)


@pytest.mark.parametrize("labels", [[None] * 6, ["na", "", "NaN", None, " ", "none"]])
def test_a_column_without_labels_is_refused(tmp_path: Path, labels: list[Any]) -> None:
    with pytest.raises(UserError, match="no row has a label in column 'hardness'"):
        prepare.prepare(data_config(tmp_path, ordinary(6), labels), 0, SETTINGS)


def test_of_a_column_that_is_not_there_only_that_is_said(tmp_path: Path) -> None:
    config = data_config(tmp_path, ordinary(6), [1.0] * 6)
    config.target = "hardnes"
    with pytest.raises(UserError) as refusal:
        prepare.prepare(config, 0, SETTINGS)
    assert "column 'hardnes' does not exist" in str(refusal.value)
    assert not re.search("left out|cannot draw|no row", str(refusal.value))


def test_equal_training_labels_are_remarked(tmp_path: Path, caplog) -> None:
    config = data_config(tmp_path, ordinary(8), [2.5] * 8)
    prepared = prepare.prepare(config, 0, SETTINGS)
    assert "all 4 training labels of hardness are 2.5 GPa" in caplog.text
    transform = prepared.transforms["hardness"]
    assert (transform.offset, transform.scale) == (2.5, 1.0)
    assert not prepared.datasets["train"].target.any()


def test_no_logarithm_is_told_wherever_the_label_is(tmp_path: Path) -> None:
    for row in range(6):
        labels = [0.0 if i == row else 1.0 + i for i in range(6)]
        config = data_config(tmp_path, ordinary(6), labels, log=True)
        with pytest.raises(UserError, match="hardness: no logarithm"):
            prepare.prepare(config, 0, SETTINGS)


def test_labels_beyond_single_precision_once_scaled_are_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, train=["c0", "c1"], validation=["c2"], test=["c3"])
    config = data_config(tmp_path, ordinary(4), [0.0, 1e-60, 0.0, 1.0], split=split)
    with pytest.raises(UserError, match=r"hardly differ \(5e-61 GPa\)"):
        prepare.prepare(config, 0, SETTINGS)


def write_split(folder: Path, **parts: list[str]) -> str:
    (folder / "split.json").write_text(json.dumps(parts))
    return str(folder / "split.json")


def test_empty_parts_are_refused_with_the_sizes(tmp_path: Path) -> None:
    split = write_split(tmp_path, train=["c0", "c1"], validation=["c2"], test=[])
    config = data_config(tmp_path, ordinary(6), [*range(6)], split=split)
    with pytest.raises(UserError, match=r"the test part .* is empty \(crystals: train 2, valid"):
        prepare.prepare(config, 0, SETTINGS)


def test_rows_of_a_split_that_cannot_be_used_are_left_out(tmp_path: Path, caplog) -> None:
    """They are in the table, so the split is right; a part may be empty without them."""
    structures = [*ordinary(5), BAD["overlap"]]
    split = write_split(tmp_path, train=["c0", "c5", "c1"], validation=["c2"], test=["c3", "c4"])
    labels = [0, 1, 2, 3, None, 5]
    fields = {"split": split, "max_rejected_fraction": 0.5}
    prepared = prepare.prepare(data_config(tmp_path, structures, labels, **fields), 0, SETTINGS)
    assert prepared.ids == {"train": ("c0", "c1"), "validation": ("c2",), "test": ("c3",)}
    assert ": 2 crystals without a label" in caplog.text
    labels[2] = None
    with pytest.raises(UserError, match="the validation part of the split is empty"):
        prepare.prepare(data_config(tmp_path, structures, labels, **fields), 0, SETTINGS)


def test_the_same_crystal_in_two_parts_is_reported(tmp_path: Path, caplog) -> None:
    structures = ordinary(6)
    structures[5] = structures[0].make_supercell([2, 1, 1], in_place=False)
    split = write_split(tmp_path, train=["c0", "c1"], validation=["c2"], test=["c3", "c5"])
    config = data_config(tmp_path, structures, [*range(6)], split=split)
    prepare.prepare(config, 0, SETTINGS)
    assert "In two parts of the split: 1 crystal:" in caplog.text
    assert "1 of the test part in the train part (c5 = c0)" in caplog.text


def test_labels_in_another_unit_are_doubted(tmp_path: Path, caplog) -> None:
    config = data_config(tmp_path, ordinary(6), [1000.0 + i for i in range(6)])
    known = {"hardness": TargetTransform("hardness", "GPa", False, 1.0, 0.5)}
    prepare.prepare(config, 0, SETTINGS, known=known)
    assert "is the unit another one?" in caplog.text
    caplog.clear()
    prepare.prepare(config, 0, SETTINGS, known={"gap": known["hardness"]})
    assert "another one" not in caplog.text


@pytest.mark.parametrize("kind", ["angles", "bonds"])
def test_giants_are_named_before_training(kind, tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "_MUCH_MEMORY", {"angles": 0.005, "bonds": 0.002}[kind])
    structures: list[Structure | None] = [*ordinary(6)]
    random = np.random.default_rng(0).uniform(-0.05, 0.05, (27, 3))
    giant = SI.make_supercell([3, 3, 3], in_place=False)
    structures[2] = Structure(giant.lattice, giant.species, giant.frac_coords + random / 3)
    settings = replace(SETTINGS, angles=kind == "angles")
    prepare.prepare(data_config(tmp_path, structures, [*range(6)]), 0, settings)
    assert re.search(rf"for 1 crystal, the largest, c2, with \d+ {kind} \(the", caplog.text)
    assert "config.data.max_sites" in caplog.text


def test_lone_atoms_are_trained_and_predicted(tmp_path: Path) -> None:
    """Cells of 40 Å with one atom, some batches of nothing else: no bonds, finite numbers."""
    lone = [Structure(Lattice.cubic(40), [s], [[0, 0, 0]]) for s in ("Ar", "Kr", "Xe")]
    structures = [*ordinary(3), *(4 * lone)]
    config = defaults.variant(defaults.scratch(), "smoke")
    config.data = data_config(tmp_path, structures, [float(i % 5) for i in range(15)])
    config.training.update(batch_size=2, epochs=1)
    config.network.trunk.width = 8
    result = run(config, tmp_path / "run")
    assert result is not None and math.isfinite(result["test_mae"])
    rows = predict(tmp_path / "run", [*lone, SI])
    assert not any(row.reason for row in rows)
    predictions = [row.prediction for row in rows]
    assert np.isfinite(predictions).all() and len(set(predictions)) == 4
