"""Comparisons of options against numbers worked out by hand, and what is said of them."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxmat.bundles.intervals import error_ratios
from jaxmat.data.targets import TargetTransform
from jaxmat.report.choice import (
    SCRATCH,
    Comparison,
    Option,
    change,
    compare,
    draw_comparison,
    estimate,
    format_choice,
    recommend,
    write_comparison,
)

TUNED, HEAD = Option("runs/fe", "all_layers"), Option("runs/fe", "new_head")
ERRORS = {
    SCRATCH: np.array([4.0, 2.0, 6.0, 4.0]),
    TUNED: np.array([1.0, 2.0, 3.0, 2.0]),
    HEAD: np.array([3.0, 1.0, 3.0, 2.0]),
}
CONSTANT = np.full(4, 8.0)


def comparison(errors: dict[Option, np.ndarray] = ERRORS) -> Comparison:
    """Of predictions that are too high by the errors."""
    failed = {Option("runs/many", "all_layers"): "several heads, none for gap"}
    left_out = {Option("runs/slow", "all_layers"): "the time was up"}
    return compare(
        errors,
        *(np.zeros(4), CONSTANT),
        folds=2,
        done=2,
        n_test=4,
        unit="eV",
        left_out=left_out,
        failed=failed,
    )


def test_the_standard_error_is_that_of_overlapping_folds() -> None:
    """Four numbers of variance 2/3 in two folds: (1/2 + 1/1) · (2/3)/2 = 1/2."""
    assert estimate(np.array([1.0, 2.0, 3.0, 2.0]), 2, 2) == pytest.approx((2.0, math.sqrt(0.5)))
    # Many folds: the plain error of a mean, twice its variance.
    values = np.arange(100.0)
    plain = values.var(ddof=1) / 100
    assert estimate(values, 100, 100).error ** 2 == pytest.approx(plain * (1 + 100 / 99))
    # The same numbers in the first two of five folds: (1/2 + 1/4) · (2/3)/2 = 1/4.
    assert estimate(np.array([1.0, 2.0, 3.0, 2.0]), 5, 2).error == pytest.approx(0.5)


def test_a_relative_change_is_paired() -> None:
    reference = ERRORS[SCRATCH]
    assert change(reference / 2, reference, 5, 5) == pytest.approx((-0.5, 0.0))
    # Ratio 2/4; (ours - reference / 2) / 4 is -1/4, 1/4, 0, 0, of variance 1/24.
    expected = math.sqrt(1.5 / 24 / 2)
    assert change(ERRORS[TUNED], reference, 2, 2) == pytest.approx((-0.5, expected))
    assert math.isnan(change(reference, np.zeros(4), 2, 2).value)


def test_options_are_ranked_with_differences_crystal_by_crystal() -> None:
    scores = comparison().scores
    assert [score.option for score in scores] == [TUNED, HEAD, SCRATCH]
    assert [score.mae.value for score in scores] == [2.0, 2.25, 4.0]
    assert scores[0].behind == (0.0, 0.0)
    # Differences 2, -1, 0, 0 of variance 19/12.
    assert scores[1].behind == pytest.approx((0.25, math.sqrt(1.5 * 19 / 12 / 2)))
    assert scores[2].to_scratch == (0.0, 0.0)
    assert scores[2].to_constant.value == pytest.approx(-0.5)
    without = comparison({option: ERRORS[option] for option in (TUNED, HEAD)})
    assert [score.to_scratch for score in without.scores] == [None, None]


def test_the_expected_error_takes_in_the_scatter_of_the_test_part() -> None:
    found = comparison()
    own, scatter = math.sqrt(0.5), math.sqrt(2 / 3) / 2
    assert found.expected.error == pytest.approx(math.hypot(own, scatter))
    assert found.expected.value == 2.0 + found.optimism >= 2.0
    assert found.weights == {TUNED: 1.0}


def test_the_recommendation_says_what_how_well_and_what_else_would_do() -> None:
    text = recommend(comparison(), "gap")
    assert text.startswith(
        "Fine-tune runs/fe with the strategy all_layers: the expected MAE of gap"
    )
    assert " eV (-50% ± " in text and "-75% ± 9% against a constant" in text
    assert text.endswith("within one standard error of it: new_head from runs/fe.")
    assert "not clearly better" not in text

    alone = compare({SCRATCH: CONSTANT}, np.zeros(4), CONSTANT, folds=2, done=2, n_test=4, unit="1")
    text = recommend(alone, "gap")
    assert text.startswith("Train from random weights: the expected MAE of gap is 8.000 ± 0.0 (")
    assert "against random weights" not in text and "standard error" not in text
    assert "not clearly better than a constant" in text


def test_what_is_relative_to_no_error_is_left_out() -> None:
    """A constant is right about equal labels, and nothing is better."""
    zeros = np.zeros(4)
    found = compare(
        {SCRATCH: zeros, TUNED: zeros}, zeros, zeros, folds=2, done=2, n_test=4, unit="eV"
    )
    text = recommend(found, "gap")
    assert "gap is 0.000 ± 0.0 eV, which is not clearly better than a constant" in text
    assert "nan" not in text + format_choice(found)


def test_intervals_without_a_width_have_no_ratio() -> None:
    """As those about equal labels, which are predicted without an error."""
    transform = TargetTransform("gap", "eV", log=False, offset=1.0, scale=2.0)
    target, prediction = np.ones(4), np.array([1.0, 2.0, 2.0, 2.0])
    low, high = np.array([1.0, 2.0, 0.0, np.nan]), np.array([1.0, 2.0, 4.0, np.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = error_ratios(transform, target, prediction, low, high)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 0.5, np.nan])


def test_a_change_too_small_to_show_has_no_minus() -> None:
    close = {SCRATCH: CONSTANT, TUNED: CONSTANT * 0.999}
    found = compare(close, np.zeros(4), CONSTANT, folds=2, done=2, n_test=4, unit="eV")
    text = recommend(found, "gap")
    assert "(0% ± 0% against random weights and 0% ± 0% against a constant)" in text
    assert "-0%" not in format_choice(found)


def test_the_table_has_the_unit_and_the_reasons_of_failures() -> None:
    text = format_choice(comparison())
    assert "out-of-fold MAE (eV)" in text and "behind the best (eV)" in text
    assert "2.000 ± 0.71" in text and "8.000 ± 0.0" in text
    assert "- all_layers from runs/many: several heads, none for gap" in text
    assert "Left out:\n\n- all_layers from runs/slow: the time was up" in text


def test_the_csv_has_every_option(tmp_path: Path) -> None:
    options = [*ERRORS, *comparison().left_out, *comparison().failed]
    directories = {option: f"options/{i}" for i, option in enumerate(options)}
    write_comparison(tmp_path / "c.csv", comparison(), directories)
    with (tmp_path / "c.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["done"] * 3 + ["left out", "failed"]
    assert rows[0]["directory"] == "options/1" and rows[0]["unit"] == "eV"
    assert float(rows[0]["mae"]) == 2.0
    assert float(rows[0]["mae_standard_error"]) == pytest.approx(math.sqrt(0.5))
    assert rows[4]["mae"] == "" and "several heads" in rows[4]["reason"]
    assert None not in rows[0] and None not in rows[4]


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    draw_comparison(tmp_path / "c.png", comparison(), "gap")
    assert (tmp_path / "c.png").stat().st_size > 0
