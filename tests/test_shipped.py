"""The models that come with the package: small, licensed, and without what they must not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jaxmat
from jaxmat.bundles.bundle import load
from jaxmat.bundles.shipped import DEFAULT, find_model, shipped_names
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.seen import recognise
from jaxmat.data.tables import read_table
from jaxmat.experiments import defaults

FOLDER = Path(jaxmat.__file__).parent / "models_shipped"
SIX = {
    *("formation_energy", "band_gap", "log_shear_modulus", "last_phonon_peak"),
    *("dielectric_constant", "piezoelectric_modulus"),
}


def test_they_are_small_and_are_found_by_name(tmp_path, monkeypatch):
    assert shipped_names() == ["all_six", "no_dielectric"] and DEFAULT == "all_six"
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 20e6
    assert defaults.finetune().start_from == DEFAULT
    assert defaults.choose().candidates == (DEFAULT,)
    monkeypatch.chdir(tmp_path)
    assert find_model(DEFAULT) == FOLDER / DEFAULT
    Path(DEFAULT).mkdir()
    assert find_model(DEFAULT) == Path(DEFAULT)  # a path goes before a name
    assert find_model("no_such") == Path("no_such")


@pytest.mark.parametrize("name", shipped_names())
def test_a_model_has_a_card_a_licence_and_tells_what_it_has_seen(name):
    bundle = load(name)
    wanted = SIX if name == "all_six" else SIX - {"dielectric_constant"}
    assert set(bundle.model.heads) == set(bundle.seen.properties) == wanted
    assert len(bundle.seen.composition) > 10_000
    card = (FOLDER / name / "README.md").read_text()
    for told in (
        "license: cc-by-4.0",
        "CC BY 4.0",
        "Half precision",
        f"--name={name}",
        "test_mae_",
    ):
        assert told in card
    assert "/work" not in card and "shared" not in card
    assert all(name in (FOLDER / "NOTICE").read_text() for name in ("Jain", "Petretto", "Jong"))
    for row in jaxmat.load(name).predict(read_table("bundled:piezoelectric").structures[:2]):
        assert row.low < row.prediction < row.high


def test_the_quick_start_is_tested_on_crystals_that_its_model_has_not_seen():
    """But for other polymorphs of the same density: what a crystal is recognised by is coarse."""
    bundle = load("no_dielectric")
    structures = read_table("bundled:dielectric").structures
    known, _ = recognise(bundle.seen, list(build_graphs(structures, bundle.model.graph)))
    assert np.mean(known) < 0.03
