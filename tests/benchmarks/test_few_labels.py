"""The benchmark with few labels: numbers by hand, and exit codes that cannot be had for nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import few_labels, intervals
from benchmarks.few_labels import CONSTANT, PICKED, SETS, SIZES, TRIALS, Row
from benchmarks.kept import find_done
from benchmarks.published import KINDS
from benchmarks.results.rows import read_results
from benchmarks.trunks import development_split
from jaxmat.experiments import defaults
from jaxmat.experiments.study.samples import read_samples
from jaxmat.experiments.study.tables import find_tables, read_table
from jaxmat.report.predictions import Prediction

ROOT = Path(__file__).parents[2]
PROCESS = "Gaussian process on descriptors"
MAES = ((PROCESS, 1.1), ("random weights", 1.0), (CONSTANT, 2.0))


def row(candidate: str, mae: float, **fields: object) -> Row:
    values = {
        **{"set": "ph", "size": 100, "trial": 1, "choice": "", "mae_scaled": mae / 10},
        **{"expected": mae, "expected_error": 0.1, "coverage": 0.9, "score": 2.0},
        **{"constant_score": 3.0, "spearman": 0.4, "spearman_low": 0.2, "spearman_high": 0.6},
    }
    return Row(candidate=candidate, mae=mae, seconds=1.0, **values | fields)


def whole(**fields: object) -> list[Row]:
    return [
        row(candidate, mae, set=name, size=size, trial=trial, **fields)
        for name in SETS
        for size in SIZES
        for trial in TRIALS
        for candidate, mae in (
            (PROCESS, 1.1),
            ("random weights", 1.0),
            (CONSTANT, 2.0),
            (PICKED, 1.1),
        )
    ]


def test_the_interval_score_is_the_width_and_what_is_missed() -> None:
    low, high = np.zeros(3), np.full(3, 2.0)
    assert few_labels.interval_score(np.array([1.0, 2.5, -1.0]), low, high) == pytest.approx(
        2 + (0.5 + 1) * 20 / 3
    )


def test_intervals_are_judged_on_predictions() -> None:
    rng = np.random.default_rng(0)
    halves = rng.uniform(0.5, 3, 200)
    targets = rng.normal(size=200) * halves / 1.645
    rows = [
        Prediction(str(i), "test", t, 0.0, "eV", -h, h)
        for i, (t, h) in enumerate(zip(targets.tolist(), halves.tolist(), strict=True))
    ]
    constant = np.full(200, np.quantile(np.abs(targets), 0.9))
    found = few_labels.judge(rows, (-constant, constant))
    assert 0.85 < found["coverage"] < 0.95
    assert found["score"] < found["constant_score"]
    assert found["spearman_low"] < found["spearman"] < found["spearman_high"]


def test_a_whole_table_within_the_limits_is_complete() -> None:
    found = few_labels.check(whole())
    assert found["problems"] == []
    assert found["regret"] == pytest.approx(0.1)
    assert found["regret_of_the_gaussian_process"] == pytest.approx(0.1)
    (line, *_) = few_labels.tabulate(whole())
    assert line[PICKED] == pytest.approx(0.11) and line["best candidate"] == pytest.approx(0.1)
    assert line["aim"] == pytest.approx(1.05 * 0.2)  # ten labels: of the median


def test_a_set_without_published_errors_has_its_line() -> None:
    rows = [one._replace(set="jarvis2d", size=993) for one in (row(PICKED, 1.0), row(PROCESS, 1.0))]
    (line,) = few_labels.tabulate(rows)
    assert line["set"] == "jarvis2d" and all(line[kind] is None for kind in KINDS)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"coverage": 0.99}, "coverage of ph 100 is 99.0%"),
        ({"coverage": 0.85}, "the mean coverage is 85.0%"),
        ({"score": 4.0}, "interval score is worse"),
        ({"spearman": 0.1}, "do not tell errors apart"),
        ({"spearman_low": -0.1}, "do not tell errors apart"),
        ({"expected": 2.0}, "the expected error held 0 of 20"),
    ],
)
def test_what_misses_a_limit_is_named(fields: dict[str, float], problem: str) -> None:
    assert problem in "; ".join(few_labels.check(whole(**fields))["problems"])


def test_missing_cells_and_candidates_are_named() -> None:
    problems = "; ".join(few_labels.check([row(PICKED, 1.0), row(PROCESS, 1.0)])["problems"])
    assert "99 of 100 cells are missing" in problems and "but one candidate" in problems


def test_the_table_is_whole_and_its_first_run_missed_one_limit() -> None:
    """The second has today's intervals of weighted means; nothing else differs."""
    folder = Path(few_labels.__file__).parent
    again, first = (
        find_done(folder / f"{name}.csv", Row) for name in ("few_labels", "few_labels_first")
    )
    assert few_labels.check(again)["problems"] == []
    # Candidates of all sets stand in the same columns.
    assert len({tuple(line) for line in few_labels.tabulate(again)}) == 1
    (problem,) = few_labels.check(first)["problems"]
    assert "interval score is worse" in problem
    intervals_of = ("coverage", "score", "constant_score", "spearman")
    for new, old in zip(again, first, strict=True):
        assert new[:5] == old[:5] and new.mae == pytest.approx(old.mae, rel=1e-6, nan_ok=True)
        if new.candidate != PICKED:
            same = [(getattr(new, name), getattr(old, name)) for name in intervals_of]
            np.testing.assert_equal(*np.array(same).T)
    # And the errors are those of the page of results.
    kept = {
        (row.target, row.labels, row.trial): row.mae
        for row in read_results(ROOT / "docs" / "results.csv")
        if (row.item, row.method) == ("few_labels", PICKED)
    }
    for row in again:
        if row.candidate == PICKED:
            assert kept[row.set, row.size, row.trial] == pytest.approx(row.mae, rel=1e-4)


@pytest.mark.slow
def test_a_cell_is_chosen_for_and_each_candidate_tested(tmp_path: Path) -> None:
    """On the bundled table, among processes."""
    samples = read_samples(find_tables("bundled")["dielectric"], defaults.data())
    table = samples.table._replace(lists={"scaling": {"min": 1.0, "max": 101.0}})
    samples = samples._replace(table=table, pool=samples.pool[:60], test=samples.test[:10])
    values = SimpleNamespace(
        **{"workdir": tmp_path, "checkpoints": "", "minutes": 1.0, "scratch": False},
        **{"strategies": ["all_layers"], "features": []},
    )
    process, constant, picked = few_labels.run_cell(samples, 20, 1, values)
    assert [process.candidate, constant.candidate] == [PROCESS, CONSTANT]
    assert picked.choice == f"1 {PROCESS}" and picked.mae == process.mae
    assert picked.mae_scaled == pytest.approx(picked.mae / 50) and picked.expected > 0
    assert 0 <= picked.coverage <= 1 and picked.score > 0
    assert not (tmp_path / "dielectric_20_1" / "candidates").exists()  # it was trained once
    # And it predicts crystals of the pool.
    labelled = read_table(find_tables("bundled")["dielectric"], defaults.data())
    labels = dict(zip(labelled.table.ids, labelled.labels[:, 0].tolist(), strict=True))
    ids = development_split(samples, 20, 1)["test"]
    final = tmp_path / "dielectric_20_1" / "choice" / "final"
    rows = intervals.predict_some(final, labelled.table, ids, labels)
    assert len(ids) == 40 and {row.id for row in rows} <= set(ids)
    line = intervals.summarize("dielectric", 20, "one model", [few_labels.judge(rows, ends(rows))])
    assert 0.5 < line["coverage"] <= 1 and line["score"] > 0


def ends(rows: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    middle = np.array([row.prediction for row in rows])
    return middle - 5, middle + 5
