"""What a result is worth is told with it: unseen elements, few crystals, crystals left out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Lattice, Structure

import jaxmat
from jaxmat.bundles.bundle import load, save_bundle
from jaxmat.bundles.means import Mean, write_mean
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.prepare import prepare
from jaxmat.experiments.unseen import describe_unseen, find_unseen, measure_unseen
from jaxmat.report.predictions import read_predictions

EXAMPLE = Path(__file__).parents[1] / "bundles" / "v1"


def rock_salt(metal: str, a: float, cells: int = 1) -> Structure:
    crystal = Structure(Lattice.cubic(a), [metal, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystal.make_supercell([cells, 1, 1])
    return crystal


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Seven oxides: two of elements that the example has never seen, one of a large cell."""
    metals = ["Mg", "Ca", "Sr", "Ba", "Gd", "Yb"]
    crystals = [rock_salt(metal, 4.2 + 0.1 * i) for i, metal in enumerate(metals)]
    crystals.append(rock_salt("Mg", 4.3, cells=4))
    rows: list[list[Any]] = [[c.as_dict(), 5.0 + i] for i, c in enumerate(crystals)]
    index = [*metals, "large"]
    content = {"index": index, "columns": ["structure", "poly_total"], "data": rows}
    (tmp_path / "table.json").write_text(json.dumps(content))
    return tmp_path / "table.json"


def evaluation(table: Path, model: Path) -> ConfigDict:
    config = defaults.evaluate(path=str(table), target="poly_total", unit="1")
    config.start_from, config.data.max_sites = str(model), 4
    return config


def test_an_evaluation_tells_what_its_error_is_made_of(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jaxmat")
    result = run(evaluation(table, EXAMPLE), tmp_path / "run")
    assert result is not None and result["crystals"] == {"test": 6}
    assert result["left_out"] == {"more than 4 sites": 1}
    unseen = result["unseen_elements"]
    assert (unseen["elements"], unseen["crystals"]) == (["Gd", "Yb"], 2)
    mean = (2 * unseen["test_mae"] + 4 * unseen["test_mae_without"]) / 6
    assert mean == pytest.approx(result["test_mae"])
    assert (
        "2 of 6 test crystals hold elements that no training crystal held (Gd, Yb)" in caplog.text
    )
    assert "1 of 7 crystals have more than 4 sites (config.data.max_sites)" in caplog.text
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    page = (tmp_path / "run" / "report.html").read_text()
    assert "hold elements that no training crystal held (Gd, Yb): the MAE of" in page
    assert "which crystals" in page and "Nothing odd" not in page


def test_the_mean_of_a_choice_is_evaluated_as_it_predicts(table: Path, tmp_path: Path) -> None:
    """It was refused: as one model it can predict alone."""
    mean = tmp_path / "choice" / "final"
    example = load(EXAMPLE)
    other = jax.tree.map(lambda leaf: leaf * np.float32(1.01), example.variables)
    save_bundle(mean / "member_0", example)
    save_bundle(mean / "member_1", example._replace(variables=other))
    write_mean(mean, Mean(["member_0", "member_1"], [0.25, 0.75], {}, 0.8))
    result = run(evaluation(table, tmp_path / "choice"), tmp_path / "run")
    assert result is not None and result["unseen_elements"]["elements"] == ["Gd", "Yb"]
    rows = {r.id: r for r in read_predictions(tmp_path / "run" / "predictions.csv")}
    crystals = {"Mg": rock_salt("Mg", 4.2), "Ca": rock_salt("Ca", 4.3)}
    for row in jaxmat.load(tmp_path / "choice").predict(crystals):
        found = rows[row.id]
        numbers = (row.prediction, row.low, row.high)
        assert (found.prediction, found.low, found.high) == pytest.approx(numbers, rel=1e-5)


def test_an_evaluation_without_numbers_is_not_done(table: Path, tmp_path: Path) -> None:
    example = load(EXAMPLE)
    variables = jax.tree.map(lambda leaf: leaf * np.float32(1e30), example.variables)
    save_bundle(tmp_path / "broken", example._replace(variables=variables))
    with pytest.raises(UserError, match=r"predictions of 6 of 6 crystals are not finite \(Mg, Ca"):
        run(evaluation(table, tmp_path / "broken"), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_few_crystals_are_told(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = defaults.data(path=str(table), target="poly_total", unit="1")
    config.n_validation, config.n_test = 2, 2
    prepared = prepare(config, 0, GraphSettings())
    assert "only 2 crystals to test on" in caplog.text
    assert "leave-one-out errors do instead" in caplog.text
    assert prepared.left_out == {}
    config.max_sites = 4
    assert prepare(config, 0, GraphSettings()).left_out == {"more than 4 sites": 1}


def test_unseen_elements_are_found_and_named() -> None:
    crystals = [rock_salt(metal, 4.5) for metal in ("Mg", "Gd", "Mg")]
    graphs = list(build_graphs(crystals, GraphSettings()))
    new, symbols = find_unseen(graphs, ["Mg", "O"])
    assert (new.tolist(), symbols) == ([False, True, False], ["Gd"])
    assert find_unseen(graphs, ["Mg", "O", "Gd"])[1] == []
    remark = describe_unseen(graphs, ["Mg", "O"], "the model")
    assert "1 of 3 training crystals hold elements that the model has never seen (Gd)" in remark
    assert describe_unseen(graphs, ["Mg", "O", "Gd"], "the model") == ""
    assert "which elements another was trained on is not known" in describe_unseen(
        graphs, None, "another"
    )


def test_errors_on_unseen_elements_are_of_crystals_with_labels() -> None:
    crystals = [rock_salt(metal, 4.5) for metal in ("Mg", "Gd", "Mg", "Gd")]
    graphs = list(build_graphs(crystals, GraphSettings()))
    transform = TargetTransform("gap", "eV", False, 0.0, 1.0)
    prediction = np.array([1.5, 2.0, 3.0, 4.0])

    def measure(*labels: float) -> tuple[dict[str, Any], str]:
        return measure_unseen(graphs, ["Mg", "O"], transform, np.array(labels), prediction)

    measured, remark = measure(1.0, np.nan, 3.0, 2.0)
    expected = {"elements": ["Gd"], "crystals": 1, "test_mae": 2.0, "test_mae_without": 0.25}
    assert measured == expected
    assert remark.startswith("1 of 3 test crystals hold elements that no training crystal held (Gd")
    assert remark.endswith("the MAE of gap on them is 2.000 eV, on the others 0.2500 eV")
    assert measure(1.0, np.nan, 3.0, np.nan) == ({}, "")
    assert measure(np.nan, 1.0, np.nan, 4.0)[1].endswith("the MAE of gap on them is 0.5000 eV")
