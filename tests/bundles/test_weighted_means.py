"""Weighted means of models: one folder predicts, and is refused where one model is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import jaxmat
from jaxmat.bundles import means
from jaxmat.bundles.bundle import load
from jaxmat.bundles.means import Mean, read_mean, save_mean, write_mean
from jaxmat.bundles.predict import (
    combine,
    combine_rows,
    fingerprint,
    load_members,
    mean_with_ends,
    predict,
)
from jaxmat.bundles.trained import TrainedModel
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments.final import widening_of_mean
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


def test_the_metrics_of_one_member_are_not_those_of_several(blend: Path) -> None:
    one, other = load_members([blend])
    assert TrainedModel(one).metrics == one.about["metrics"] != {}
    assert TrainedModel([one, other]).metrics == {}
    with pytest.raises(UserError, match="at least one model"):
        TrainedModel([])


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


def test_where_a_mean_cannot_be_written_nothing_is_left(blend: Path, tmp_path: Path, monkeypatch):
    """An address became a folder called gs:, a full disk a traceback."""
    write(blend, {"members": ["member_0", "member_1"], "weights": [0.25, 0.75]})
    mean = jaxmat.load(blend)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="addresses"):
        mean.save("gs://bucket/mean")
    assert not (tmp_path / "gs:").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(means, "write_mean", full)
    with pytest.raises(UserError, match="Cannot write kept: no space left"):
        mean.save("kept")


def test_predictions_with_other_weights_or_intervals_are_others(blend: Path, tmp_path: Path):
    """A prediction that was stopped went on with them, and its rows did not belong together."""
    members = load_members([blend])
    one = fingerprint(members)
    assert fingerprint(load_members([blend])) == one
    assert fingerprint(members[:1]) == fingerprint([load(EXAMPLE)])
    found = [one]
    for more in ({}, {"widening": 0.5}):
        write(blend, {"members": ["member_0", "member_1"], "weights": [0.5, 0.5], **more})
        found.append(fingerprint(load_members([blend])))
    about = members[1].about
    wider = {name: values | {"half_width": 9.0} for name, values in about["calibration"].items()}
    for changed in ({"calibration": wider}, {"elements": ["Si"]}):
        others = [members[0], members[1]._replace(about=about | changed)]
        found.append(fingerprint(others))
    assert len(set(found)) == len(found) == 5


@pytest.mark.parametrize(
    "content",
    [
        {"members": ["member_0"], "weights": [0.25, 0.75]},
        {"members": ["member_0", "../elsewhere"], "weights": [0.25, 0.75]},
        {"members": ["member_0", ".."], "weights": [0.25, 0.75]},
        {"members": ["member_0", ""], "weights": [0.25, 0.75]},
        {"members": ["member_0", "member_1"], "weights": [0.5, 0.75]},
        {"members": ["member_0", "member_1"], "weights": [1.5, -0.5]},
        {"members": ["member_0"], "weights": [1.0], "widening": -0.5},
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
    row = combine_rows(rows, np.array([0.25, 0.75]), log=False)
    assert (row.prediction, row.low, row.high) == pytest.approx((mean[0], low[0], high[0]))
    assert row.high - row.low > 1.0  # they disagree
    equal = combine(scaled, [plain, plain], [0.5, 0.5])
    same = combine(scaled, [plain, plain], [0.5, 0.5], np.array([0.5, 0.5]))
    np.testing.assert_allclose(equal, same)


def test_intervals_of_logarithms_are_wider_above() -> None:
    """Before, half a width was the same on both sides, and a modulus might be below zero."""
    one = TargetTransform("modulus", "GPa", True, 0.0, 1.0)
    other = TargetTransform("modulus", "GPa", True, 1.0, 2.0)
    scaled = np.array([[0.0], [0.5]])  # 1 and e² GPa
    mean, low, high = combine(scaled, [one, other], [1.0, 0.5])
    assert mean == pytest.approx((1 + np.exp(2)) / 2)
    half = np.hypot(1.0, 1.6448536 * 2 / np.sqrt(2))  # both widths are 1, of logarithms 0 and 2
    np.testing.assert_allclose([low, high], mean * np.exp([[-half], [half]]))
    rows = [
        Prediction("a", "test", 1.0, p, "GPa", p / np.e, p * np.e) for p in (1.0, float(np.exp(2)))
    ]
    row = combine_rows(rows, np.array([0.5, 0.5]), log=True)
    assert (row.prediction, row.low, row.high) == pytest.approx((mean[0], low[0], high[0]))
    # One that predicts the modulus itself may say zero, which has no logarithm.
    plain = TargetTransform("modulus", "GPa", False, 0.0, 1.0)
    middle = np.add(*combine(scaled, [one, plain], [1.0, 0.5])[1:]) / 2
    assert middle == pytest.approx(0.75)


def test_a_mean_is_as_wide_as_its_own_errors_ask_for(blend: Path) -> None:
    names = ["member_0", "member_1"]
    crystal = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    (before,) = predict(blend, crystal)
    write_mean(blend, Mean(names, [0.25, 0.75], {}, 0.5))
    (after,) = predict(blend, crystal)
    assert after.prediction == before.prediction
    # The models predict the logarithm.
    assert after.high / after.low == pytest.approx((before.high / before.low) ** 0.5)
    save_mean(blend.parent / "again", load_members([blend]), {})
    assert read_mean(blend.parent / "again") == Mean(names, [0.25, 0.75], {}, 0.5)


@pytest.mark.parametrize("log", [False, True])
def test_the_widening_of_a_mean_holds_nine_of_ten_labels(log: bool) -> None:
    rng = np.random.default_rng(0)
    values, half = rng.normal(size=(2, 99)), np.full((2, 99), 0.3)
    ends, labels = np.stack([values, values - half, values + half]), rng.normal(size=99)
    ends[:, 1, :9] = np.nan  # where the time was up
    if log:
        ends, labels = np.exp(ends), np.exp(labels)
    shares = np.array([0.25, 0.75])
    wider = widening_of_mean(ends, labels, shares, log)
    _, low, high = mean_with_ends(ends[..., 9:], shares, log, wider * (1 + 1e-9))
    # Of 90 labels the ceil(91 · 0.9)-th.
    assert np.count_nonzero((low <= labels[9:]) & (labels[9:] <= high)) == 82


def test_a_mean_without_widths_out_of_fold_keeps_what_its_models_say() -> None:
    labels, shares = np.ones(9), np.array([0.5, 0.5])
    for width in (0.0, np.nan):  # labels that are all equal; no interval
        ends = np.stack([np.ones((2, 9)), np.ones((2, 9)) - width, np.ones((2, 9)) + width])
        assert widening_of_mean(ends, labels, shares, log=False) == 1.0
