"""Weighted means of models: one folder predicts, and is refused where one model is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import jaxmat
from jaxmat.bundles.bundle import load
from jaxmat.bundles.predict import combine, combine_rows, load_members
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.report.predictions import Prediction

EXAMPLE = Path(__file__).parent / "v1"


@pytest.fixture
def blend(tmp_path: Path) -> Path:
    for name in ("member_0", "member_1"):
        shutil.copytree(EXAMPLE, tmp_path / name / "model")
    write(tmp_path, {"members": ["member_0", "member_1"], "weights": [0.25, 0.75]})
    return tmp_path


def write(folder: Path, content: object) -> None:
    (folder / "ensemble.json").write_text(json.dumps(content))


def test_a_folder_stands_for_its_members(blend: Path) -> None:
    members = load_members([blend])
    assert [member.about["weight"] for member in members] == [0.25, 0.75]
    with pytest.raises(UserError, match="weighted mean of several models"):
        load(blend)


def test_python_predicts_with_the_mean_and_keeps_it(blend: Path, tmp_path: Path) -> None:
    write(
        blend, {"members": ["member_0", "member_1"], "weights": [0.25, 0.75], "metrics": {"x": 1}}
    )
    mean, crystal = jaxmat.load(blend), Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    assert mean.metrics == {"x": 1} and "25% trained" in repr(mean)
    with pytest.raises(UserError, match="weighted mean of 2"):
        _ = mean.bundle
    (row,) = mean.predict(crystal)
    (one,) = jaxmat.load(EXAMPLE).predict(crystal)
    assert row.prediction == pytest.approx(one.prediction) and row.high > row.low
    mean.save(tmp_path / "kept")
    again = jaxmat.load(tmp_path / "kept")
    assert again.predict(crystal) == [row] and again.metrics == {"x": 1}
    with pytest.raises(UserError, match="not empty"):
        mean.save(tmp_path / "kept")


@pytest.mark.parametrize(
    "content",
    [
        {"members": ["member_0"], "weights": [0.25, 0.75]},
        {"members": ["member_0", "../elsewhere"], "weights": [0.25, 0.75]},
        {"members": ["member_0", ".."], "weights": [0.25, 0.75]},
        {"members": ["member_0", ""], "weights": [0.25, 0.75]},
        {"members": ["member_0", "member_1"], "weights": [0.5, 0.75]},
        {"members": ["member_0", "member_1"], "weights": [1.5, -0.5]},
        {},
    ],
)
def test_what_names_them_is_checked(blend: Path, content: object) -> None:
    write(blend, content)
    with pytest.raises(UserError, match="weights"):
        load_members([blend])


def test_means_and_their_intervals_are_weighted() -> None:
    plain = TargetTransform("gap", "eV", False, 0.0, 1.0)
    scaled = np.array([[1.0], [2.0]])
    mean, low, high = combine(scaled, [plain, plain], [0.5, 0.5], np.array([0.25, 0.75]))
    assert mean == pytest.approx(1.75)
    rows = [Prediction("a", "test", 1.0, p, "eV", p - 0.5, p + 0.5) for p in (1.0, 2.0)]
    row = combine_rows(rows, [0.25, 0.75])
    assert (row.prediction, row.low, row.high) == pytest.approx((mean[0], low[0], high[0]))
    assert row.high - row.low > 1.0  # they disagree
    equal = combine(scaled, [plain, plain], [0.5, 0.5])
    same = combine(scaled, [plain, plain], [0.5, 0.5], np.array([0.5, 0.5]))
    np.testing.assert_allclose(equal, same)
