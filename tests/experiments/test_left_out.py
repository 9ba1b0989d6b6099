"""Elements left out of training: what is measured, and what models say of elements not met."""

from __future__ import annotations

import json
import logging
from functools import partial
from itertools import product
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Element, Lattice, Structure

from jaxmat.bundles.bundle import load, may_meet_new_elements, read_bundle, save_bundle
from jaxmat.bundles.describe import describe
from jaxmat.bundles.embed import embed
from jaxmat.bundles.predict import predict
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.report.predictions import read_predictions
from jaxmat.training.metrics import grouped_conformal_factor

CATIONS = "Li Na K Cs Mg Ca Sr Ba Zn Cd Ag Ni".split()
ANIONS = "F Cl Br I O S Se".split()


def salt(cation: str, anion: str) -> Structure:
    edge = 2 * (Element(cation).atomic_radius + Element(anion).atomic_radius)
    return Structure(Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5] * 3])


def write_table(file: Path, pairs: list[tuple[str, str]]) -> Path:
    """Rows whose label follows from the electronegativities and the volume."""
    rows = []
    for cation, anion in pairs:
        crystal = salt(cation, anion)
        label = (Element(anion).X - Element(cation).X) * 1000 / crystal.volume
        rows.append([crystal.as_dict(), label])
    index = ["".join(pair) for pair in pairs]
    content = {"index": index, "columns": ["structure", "gap"], "data": rows}
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "salts.json"
    return write_table(file, list(product(CATIONS, ANIONS)))


def process(table: Path, elements: str) -> ConfigDict:
    config = defaults.gaussian_process(path=str(table), target="gap", unit="eV")
    config.leave_out_elements = elements
    return config


@pytest.fixture(scope="module")
def fitted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A process with nine elements left out, stopped in between, and its result."""
    logger = logging.getLogger("jaxmat")
    level = logger.level
    logger.setLevel(logging.INFO)  # which its children hear of; of the attribute alone they do not
    workdir = tmp_path_factory.mktemp("fitted")
    config = process(table, ",".join(CATIONS[:9]))
    asked = iter(range(100))
    assert run(config, workdir, stop=lambda step: next(asked) == 5) is None
    done = {path: path.stat().st_mtime_ns for path in workdir.glob("elements/*/result.json")}
    assert 0 < len(done) < 9 and not (workdir / "result.json").exists()
    result = run(config, workdir)
    assert result is not None
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    logger.setLevel(level)
    return workdir, result


def test_no_crystal_with_the_element_is_trained_on_and_no_test_crystal_at_all(
    table: Path, fitted: tuple[Path, dict[str, Any]]
) -> None:
    workdir, result = fitted
    whole = json.loads((workdir / "split.json").read_text())
    inside = {*whole["train"], *whole["validation"]}
    measured, errors = result["left_out_elements"]["gap"], []
    for cation in CATIONS[:9]:
        split = json.loads((workdir / "elements" / cation / "split.json").read_text())
        holding = {cation + anion for anion in ANIONS} & inside
        assert set(split["test"]) == holding
        assert {*split["train"], *split["validation"]} == inside - holding
        rows = read_predictions(workdir / "elements" / cation / "predictions.csv")
        tested = [row for row in rows if row.split == "test"]
        mae = np.mean([abs(row.target - row.prediction) for row in tested])
        assert measured["mae_by_element"][cation] == pytest.approx(mae)
        errors.append([abs(r.target - r.prediction) / ((r.high - r.low) / 2) for r in tested])
    assert measured["crystals"] == sum(map(len, errors))
    wider = grouped_conformal_factor([np.array(each) for each in errors], 0.9)
    assert measured["widening"] == pytest.approx(max(1.0, wider))


def test_a_measured_model_answers_about_elements_it_has_not_met(
    table: Path, fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    bundle = load(fitted[0])
    new, known = salt("Rb", "Cl"), salt("Na", "Cl")
    row, other = predict(fitted[0], [new, known])
    assert row.reason == other.reason == other.remark == ""
    assert "no training crystal held Rb" in row.remark
    assert row.low < row.prediction < row.high
    assert row.low < (Element("Cl").X - Element("Rb").X) * 1000 / new.volume < row.high

    # What others are not widened by, it is.
    widening = bundle.about["left_out_elements"]["gap"]["widening"]
    without = bundle._replace(about={**bundle.about, "left_out_elements": {}})
    save_bundle(tmp_path / "all", without._replace(about={**without.about, "elements": None}))
    plain, same = predict(tmp_path / "all", [new, known])
    assert row.uncertainty == pytest.approx(widening * plain.uncertainty, rel=1e-5)
    assert (other.prediction, other.uncertainty) == (same.prediction, same.uncertainty)
    assert embed(fitted[0], [new, known])["vector"].shape == (2, 105)

    # Not measured, it refuses.
    save_bundle(tmp_path / "old", without)
    refused, _ = predict(tmp_path / "old", [new, known])
    assert "has never seen Rb" in refused.reason and np.isnan(refused.prediction)
    assert embed(tmp_path / "old", [new, known])["left_out"].shape == (1,)
    # And so does a mean of it with one that is measured.
    assert predict([fitted[0], tmp_path / "old"], [new, known])[0].reason == refused.reason

    config = defaults.evaluate(path="", target="gap", unit="eV")
    config.start_from = str(fitted[0])
    config.data.path = str(write_table(tmp_path / "new.json", [("Rb", "Cl"), ("Na", "Cl")]))
    assert run(config, tmp_path / "evaluated")
    tested, _ = read_predictions(tmp_path / "evaluated" / "predictions.csv")
    assert (tested.low, tested.high) == pytest.approx((row.low, row.high), rel=1e-5)


def test_it_is_told_what_was_measured(fitted: tuple[Path, dict[str, Any]]) -> None:
    workdir, _ = fitted
    texts = [
        describe(load(workdir)),
        (workdir / "model" / "README.md").read_text(),
        (workdir / "report.html").read_text(),
    ]
    assert all("Trained without one of 9 elements at a time" in text for text in texts)
    log = (workdir / "log.txt").read_text()
    assert "9 trainings as long as that of the model itself" in log
    assert "training 1 of 10: Li" in log and "left: all" in log


def test_what_a_bundle_says_of_it_is_checked(
    fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    bundle = load(fitted[0])
    for measured, words in (
        (
            {"gap": {"widening": 0.5, "crystals": 3, "mae_by_element": {"Li": 1.0}}},
            "widening is 0.5",
        ),
        ({"gap": {"widening": 2.0, "crystals": 3, "mae_by_element": {"Xx": 1.0}}}, "by_element"),
        ({"hardness": {}}, "hardness, which the model does not predict"),
    ):
        save_bundle(
            tmp_path / "m", bundle._replace(about=bundle.about | {"left_out_elements": measured})
        )
        with pytest.raises(UserError, match=words):
            read_bundle(tmp_path / "m")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ("8", "a number from 9 on"),
        ("Xx", "symbols of elements"),
        ("40", r"only \d+ elements are held by"),
        ("Li,Na,K", "3 are named; 9 are needed"),
        (",".join([*CATIONS[:9], "Gd"]), "Gd: no crystal of the training"),
    ],
)
def test_what_cannot_be_left_out_is_said_before_anything_is_trained(
    elements: str, words: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        run(process(table, elements), tmp_path / "run")
    assert not (tmp_path / "run" / "elements").exists()


def test_networks_that_know_elements_apart_are_refused(table: Path, tmp_path: Path) -> None:
    config = defaults.scratch(path=str(table), target="gap", unit="eV")
    config.leave_out_elements = "9"
    config.network.trunk.element_features = "properties+embedding"
    with pytest.raises(UserError, match="something of its own for each element"):
        run(config, tmp_path / "run")
    config.network.trunk.element_features = "properties"
    config.population = 2
    with pytest.raises(UserError, match="for one training"):
        run(config, tmp_path / "run")


@pytest.mark.slow
def test_a_network_is_measured_and_goes_on_where_it_was_stopped(
    table: Path, tmp_path: Path
) -> None:
    config = defaults.scratch(path=str(table), target="gap", unit="eV")
    config = defaults.variant(config, "smoke")
    config.leave_out_elements = "9"
    whole = run(config, tmp_path / "whole")
    for step in (1, 2):
        assert run(config, tmp_path / "broken", stop=partial(eq, step)) is None
    broken = run(config, tmp_path / "broken")
    assert whole is not None and broken is not None
    assert whole["left_out_elements"] == broken["left_out_elements"]
    assert whole["test_mae"] == broken["test_mae"]
    assert may_meet_new_elements(load(tmp_path / "broken"))
    (row,) = predict(tmp_path / "whole", [salt("Rb", "Cl")])
    assert not row.reason and "Rb" in row.remark
    # The model itself is the one that is trained without this.
    config.leave_out_elements = ""
    plain = run(config, tmp_path / "plain")
    assert plain is not None and plain["test_mae"] == whole["test_mae"]


def test_errors_in_groups_hold_for_the_next_group() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="too few"):
        grouped_conformal_factor([np.ones(9)] * 8, 0.9)
    assert grouped_conformal_factor([np.array([1.0, 5.0]), *[np.ones(3)] * 8], 0.9) == 5.0
    inside = []
    for _ in range(2000):
        groups = [
            np.abs(rng.normal(size=size)) * rng.lognormal(sigma=1)
            for size in rng.integers(1, 20, size=21)
        ]
        inside.append(np.mean(groups[0] <= grouped_conformal_factor(groups[1:], 0.9)))
    assert 0.89 <= np.mean(inside) <= 0.96
