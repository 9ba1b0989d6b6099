"""The analysis of a study: numbers by hand, pairing of trials, and the table on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmat.report.predictions import Prediction, write_predictions
from jaxmat.report.rows import read_rows, write_rows
from jaxmat.report.study.analysis import (
    by_setting,
    read_test_errors,
    relative_to_scratch,
    relative_to_strategy,
    summarize,
)
from jaxmat.report.study.results import CellResult


def cell(mae: float, source: str = "", **fields: Any) -> CellResult:
    """A cell that is done, from scratch where there is no source."""
    strategy = "all_layers" if source else "scratch"
    row = CellResult(
        *("", "finetune" if source else "scratch", source, 941 if source else None, "dc", 100),
        *(strategy, "published", 1e-3, 1, "done", "poly_total", "1", 90, 10, 3),
        *(mae, 2 * mae, 0.5, mae / 10, 0.5, mae / 2, mae / 20, 9.0, 60.0, ""),
    )._replace(**fields)
    return row._replace(cell="-".join(map(str, row)))


def test_summary_by_hand() -> None:
    rows = [cell(mae, trial=trial) for trial, mae in enumerate([1.0, 2.0, 6.0])]
    (summary,) = summarize(by_setting([*rows, cell(9.0, trial=3, status="failed")])).values()

    assert (summary.trials, summary.runs, summary.diverged) == (3, 3, 0)
    assert (summary.test_mae, summary.test_mae_spread) == (3.0, pytest.approx(7**0.5))
    assert (summary.test_mae_scaled, summary.train_mae) == (pytest.approx(0.3), 1.5)
    assert (summary.constant_test_mae, summary.seconds) == (9.0, 60.0)
    assert math.isnan(summary.sample_spread) and math.isnan(summary.seed_spread)


def test_seeds_of_a_trial_count_as_one_trial() -> None:
    rows = [
        cell(mae, trial=trial, seed=seed)
        for trial, seed, mae in [(1, 0, 0.0), (1, 1, 2.0), (2, 0, 4.0), (2, 1, 6.0)]
    ]
    (summary,) = summarize(by_setting(rows)).values()
    assert (summary.trials, summary.runs, summary.test_mae) == (2, 4, 3.0)
    assert summary.test_mae_spread == pytest.approx(8**0.5)
    assert summary.sample_spread == pytest.approx(7**0.5)
    assert summary.seed_spread == pytest.approx(2**0.5)


def test_runs_without_a_number_are_counted_and_left_out() -> None:
    rows = [cell(1.0, trial=1), cell(math.nan, trial=2), cell(math.inf, trial=3)]
    (summary,) = summarize(by_setting(rows)).values()
    assert (summary.trials, summary.diverged, summary.test_mae) == (1, 2, 1.0)
    assert summarize(by_setting(rows[1:])) == {}


def test_only_matching_trials_are_compared() -> None:
    scratch = [cell(mae, trial=t) for t, mae in [(1, 2.0), (2, 4.0), (3, 1000.0)]]
    tuned = [cell(mae, "fe", trial=t) for t, mae in [(2, 2.0), (1, 1.0), (4, 1e-9)]]
    (change,) = relative_to_scratch(by_setting([*scratch, *tuned]), {}).values()
    assert change.trials == 2
    np.testing.assert_allclose([change.change, change.low, change.high], -0.5)
    assert math.isnan(change.crystals_low)
    assert relative_to_scratch(by_setting([*scratch[2:], *tuned]), {}) == {}


@pytest.mark.parametrize(
    "other", [{"target": "ph"}, {"target_size": 10}, {"protocol": "sound"}], ids=str
)
def test_scratch_has_to_match(other: dict[str, Any]) -> None:
    assert relative_to_scratch(by_setting([cell(1.0, **other), cell(1.0, "fe")]), {}) == {}


def test_scratch_at_the_same_learning_rate_comes_first() -> None:
    tuned = [cell(1.0, "fe", learning_rate=rate) for rate in (1e-3, 1e-4)]
    scratch = [cell(2.0, learning_rate=1e-3), cell(4.0, learning_rate=1e-2)]
    both = relative_to_scratch(by_setting([*tuned, *scratch]), {})
    assert [(s.learning_rate, c.change) for s, c in both.items()] == [(1e-3, pytest.approx(-0.5))]
    only = relative_to_scratch(by_setting([*tuned, scratch[1]]), {})
    assert [c.change for c in only.values()] == [pytest.approx(-0.75)] * 2
    assert {c.baseline_learning_rate for c in only.values()} == {1e-2}


def test_strategies_are_compared_on_the_same_source_and_rate() -> None:
    rows = [
        cell(1.0, "fe"),
        cell(2.0, "fe", strategy="new_head"),
        cell(9.0, "bg", strategy="new_head"),
        cell(1.0),
    ]
    relative = relative_to_strategy(by_setting(rows), "all_layers")
    assert {(s.source, s.strategy): c.change for s, c in relative.items()} == {
        ("fe", "new_head"): pytest.approx(1.0)
    }


def test_predictions_give_an_interval_over_crystals(tmp_path: Path) -> None:
    labels = np.array([1.0, 2.0, np.nan, 4.0])
    rows = []
    for name, source, error in (("scratch", "", 2.0), ("tuned", "fe", 1.0)):
        (tmp_path / name).mkdir()
        tested = [
            Prediction(f"c{i}", "test", y, y + error * (i + 1), "1") for i, y in enumerate(labels)
        ]
        trained = Prediction("t", "train", 0.0, 1e6, "1")
        write_predictions(tmp_path / name / "predictions.csv", [trained, *tested])
        rows.append(cell(error * 7 / 3, source, directory=name))
    errors = read_test_errors(tmp_path, [*rows, cell(1.0, trial=7, directory="missing")])

    assert set(errors) == {row.cell for row in rows}
    assert errors[rows[0].cell].ids == ("c0", "c1", "c3")
    np.testing.assert_allclose(errors[rows[0].cell].error, [2.0, 4.0, 8.0])
    (change,) = relative_to_scratch(by_setting(rows), errors).values()
    np.testing.assert_allclose([change.change, change.crystals_low, change.crystals_high], -0.5)


def test_results_are_exact_and_blank_where_nothing_is_known(tmp_path: Path) -> None:
    rows = [
        cell(0.1 + 0.2, "fe", seed=3),
        cell(math.nan, status="failed", reason='no "number",\nat all', n_train=None),
    ]
    write_rows(tmp_path / "results.csv", CellResult._fields, rows)
    (_, first), (_, second) = read_rows(tmp_path / "results.csv", CellResult._fields)
    assert float(first["test_mae"]) == 0.1 + 0.2 and first["seed"] == "3"
    assert (second["test_mae"], second["n_train"]) == ("", "")
    assert second["reason"] == 'no "number",\nat all'
