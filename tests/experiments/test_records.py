"""Where a training ends by itself, and what is left of one whose errors are not finite."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments import records
from jaxmat.experiments.records import Records, has_ended

ERRORS = st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, np.nan]), max_size=12)


def ends_now(curve: list[float], patience: int) -> bool:
    """Whether a training alone would end at its last evaluation."""
    if not patience or np.isnan(curve).all():
        return False
    return len(curve) - 1 - int(np.nanargmin(curve)) >= patience


@given(ERRORS, st.integers(0, 4))
def test_an_end_stays_an_end(curve: list[float], patience: int) -> None:
    ends = [ends_now(curve[: i + 1], patience) for i in range(len(curve))]
    assert has_ended(np.array(curve), patience) == any(ends)


class _Data:
    transforms = {"gap": TargetTransform("gap", "eV", False, 0.0, 1.0)}


class _Model:
    def describe(self) -> dict[str, Any]:
        return {}


def new_records(workdir: Path, step: int = 0, **fields: Any) -> Records:
    config: Any = ConfigDict({"patience": 2, "test_with": "last"} | fields)
    data: Any = _Data()
    model: Any = _Model()
    predictor: Any = None
    return Records(workdir, data, model, config, predictor, step, True)


def write(one: Records, errors: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    for step, error in enumerate(errors, start=1):
        found = {"validation_mae": error}
        monkeypatch.setattr(records, "validate", lambda *_, found=found: found)
        if not one.is_over:
            one.write(step, step, variables(step), {"train_loss": np.float32(1.0)})
    assert one.checkpoints.write_waiting()


def variables(step: int) -> dict[str, Any]:
    return {"params": {"a": np.full(2, step, np.float32)}, "batch_stats": {}}


@pytest.mark.parametrize(("test_with", "tested"), [("best", 2), ("last", 4)])
def test_the_end_of_a_member_is_where_it_would_be_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_with: str, tested: int
) -> None:
    """The population goes on, and the member has a better error then."""
    one = new_records(tmp_path, test_with=test_with)
    write(one, [3.0, 1.0, 2.0, 2.0, 0.5, 0.4], monkeypatch)
    assert one.is_over and (tmp_path / "metrics.jsonl").read_text().count("\n") == 4
    for each in (one, new_records(tmp_path, step=6, test_with=test_with)):
        found = each.outcome(variables(6))
        assert not isinstance(found, UserError)
        np.testing.assert_array_equal(found["params"]["a"], [tested] * 2)


def test_a_member_that_goes_on_to_the_end_is_tested_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_records(tmp_path)
    write(one, [3.0, 2.0, 1.0], monkeypatch)
    assert not one.is_over and one.outcome(variables(3)) is not None
    assert not (tmp_path / "checkpoints" / "end").exists()


def test_of_a_member_whose_errors_were_never_finite_it_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_records(tmp_path, test_with="best")
    write(one, [np.nan, np.nan], monkeypatch)
    found = one.outcome(variables(2))
    assert isinstance(found, UserError) and "never finite" in str(found)


def test_the_last_checkpoint_is_never_taken_for_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_records(tmp_path, test_with="best")
    write(one, [3.0, 2.0], monkeypatch)
    place = one.checkpoints.folder / "best"
    shutil.copytree(place, one.checkpoints.folder / "last")
    shutil.rmtree(place)
    found = one.outcome(variables(2))
    assert isinstance(found, UserError) and f"{place} holds no whole checkpoint" in str(found)
