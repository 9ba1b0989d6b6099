"""The published errors that results stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.published import (
    FILE,
    KINDS,
    OF_941,
    OF_ANY,
    SCRATCH,
    SIZES,
    TARGETS,
    find_gains,
    find_marks,
    read_marks,
    write_marks,
)
from jaxmat.report.study.published import Key, Run, read_published

PUBLISHED = Path(__file__).parents[3] / "shared" / "paper" / "results.csv"


def runs(*errors: float, trials: str = "12345") -> list[Run]:
    return [Run(None, trial, mae, 0.0, 0.0) for trial, mae in zip(trials, errors, strict=False)]


def test_marks_are_the_best_of_their_kind() -> None:
    found = find_marks(
        {
            Key("", None, "dc", 100, ""): runs(0.06, 0.05, 0.06, 0.05, 0.08),
            Key("fe", 941, "dc", 100, "all_layers"): runs(0.045, 0.045, 0.045, 0.045),
            Key("gv", 941, "dc", 100, "all_layers"): runs(0.048, 0.048, 0.048, 0.048),
            Key("gv", 941, "dc", 100, "two_body"): runs(0.01, 0.01, 0.01, 0.01),
            Key("fe", 100000, "dc", 100, "all_layers"): runs(0.035, 0.034, 0.036, 0.035),
            Key("bg", 5000, "dc", 100, "all_layers"): runs(0.001, trials="5"),
        }
    )
    assert found["dc", 100, SCRATCH].mean == pytest.approx(0.06)
    assert found["dc", 100, SCRATCH].by_trial == {1: 0.06, 2: 0.05, 3: 0.06, 4: 0.05, 5: 0.08}
    assert found["dc", 100, OF_941].source == "fe 941"
    assert found["dc", 100, OF_ANY].source == "fe 100000"
    assert found["dc", 100, OF_ANY].mean == pytest.approx(0.035)


def test_gains_are_over_the_trials_that_both_have() -> None:
    """The fifth trial from random weights is of other crystals for some sets."""
    found = {}
    for n in SIZES:
        for target, others in (("dc", 0.02), ("ph", 0.04)):
            found[Key("", None, target, n, "")] = runs(0.1, 0.1, 0.1, 0.1)
            found[Key("others", None, target, n, "all_layers")] = runs(*[others] * 5)
        found[Key("fe", 941, "dc", n, "all_layers")] = runs(0.05, 0.05, 0.05, 0.05, 9.0)
        found[Key("fe", 941, "ph", n, "all_layers")] = runs(0.07, 0.07, 0.07, 0.07)
        found[Key("fe", 100000, "ph", n, "all_layers")] = runs(0.03, 0.03, 0.03, 0.03, 9.0)
        found[Key("bg", 941, "ph", n, "two_body")] = runs(0.01, 0.01, 0.01, 0.01)
    # Of all five trials the errors of the last two are above those of all at once.
    found[Key("fe", 100000, "ph", 10, "all_layers")] = runs(0.03, 0.03, 0.03, 0.03)
    (ten, *_, eight_hundred) = find_gains(found)
    assert (ten.labels, ten.pairs, ten.sets) == (10, 2, 2)
    assert ten.change == pytest.approx(-0.4)
    assert (ten.ahead_of_941, ten.ahead_of_any) == (2, 1)
    assert eight_hundred.ahead_of_any == 2


@pytest.mark.skipif(not PUBLISHED.exists(), reason="../shared/paper is not there")
def test_the_guide_says_what_pre_training_was_worth() -> None:
    gains = find_gains(read_published(PUBLISHED))
    row = "| change of the test MAE |" + "".join(f" −{-g.change:.0%} |" for g in gains)
    guide = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert {gain.pairs for gain in gains} == {42} and row.replace("%", " %") in guide


def test_the_kept_marks_are_complete_and_rising_in_order() -> None:
    marks = read_marks()
    assert {*marks} == {(t, n, kind) for t in TARGETS for n in SIZES for kind in KINDS}
    for target in TARGETS:
        for n in SIZES:
            best, of_941, scratch = (marks[target, n, kind].mean for kind in KINDS)
            assert best <= of_941 < scratch


@pytest.mark.skipif(not PUBLISHED.exists(), reason="../shared/paper is not there")
def test_the_kept_marks_are_those_of_the_published_runs(tmp_path: Path) -> None:
    write_marks(tmp_path / "marks.csv", find_marks(read_published(PUBLISHED)))
    assert (tmp_path / "marks.csv").read_bytes() == FILE.read_bytes()
