"""Published results: which runs stand beside a setting, and in which units."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxmat.errors import UserError
from jaxmat.report.study.analysis import by_setting
from jaxmat.report.study.published import (
    Comparison,
    Key,
    compare_with_published,
    read_published,
)
from jaxmat.report.study.results import CellResult

COLUMNS = (
    "pt_property pt_size ft_property ft_size strategy learning_rate trial use "
    "test_mae fixed_mae fixed_r2 train_mae"
).split()
TUNED = "FE 1K PZ 800 ALL-UF".split()
SCRATCH = ["", "", "PZ", "800", "SCRATCH"]


def write(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return path


def cells(
    source: str = "fe",
    size: int | None = 1000,
    strategy: str = "all_layers",
    rate: float = 1e-3,
    unit: str = "C/m^2",
    maes: Sequence[float] = (1.0, 2.0, 3.0),
    **fields: Any,
) -> list[CellResult]:
    """Cells of trials 1, 2, ... of a setting."""
    kind = "finetune" if source else "scratch"
    about = (kind, source, size, "pz", 800, strategy, "sound", rate)
    row = CellResult(
        *("id", *about, 0, "done", "eij_max", unit, 720, 80, 94),
        *(0.0, 0.0, 0.1, 9.0, 0.1, 1.0, 9.0, 3.0, 60.0, ""),
    )._replace(**fields)
    return [row._replace(trial=i, test_mae=mae) for i, mae in enumerate(maes, start=1)]


def compared(path: Path, *rows: CellResult) -> list[Comparison]:
    return compare_with_published(by_setting(rows), read_published(path))


def test_labels_are_corrected_and_units_are_those_of_the_study(tmp_path: Path) -> None:
    path = write(
        tmp_path / "published.csv",
        [*TUNED, "", "1", "1", "0.05", "0.03", "0.2", "0.003"],
        [*TUNED, "", "2", "1", "0.07", "0.05", "0.4", "0.005"],
        [*TUNED, "", "3", "0", "9.00", "9.00", "9.0", "9.000"],
    )
    (one,) = compared(path, *cells(maes=(1.5, 2.5, 9.0)))
    half_range = (46.192855 - 0.000006) / 2
    assert one.published_trials == 2
    assert one.published_mae_scaled == pytest.approx(0.04)
    assert one.published_mae_scaled_spread == pytest.approx(0.02 / 2**0.5)
    assert one.published_mae == pytest.approx(0.04 * half_range)
    assert one.published_train_mae == pytest.approx(0.004 * half_range)
    assert one.published_r2 == pytest.approx(0.3)
    # Whatever the scaling of the study was, it is compared in published units.
    assert (one.test_mae, one.test_mae_scaled) == (2.0, pytest.approx(2.0 / half_range))


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    path = write(tmp_path / "published.csv", [*TUNED, "", "1", "1", "0.05", "0.03", "0.2", ""])
    (one,) = compared(path, *cells())
    assert math.isnan(one.published_mae_spread) and math.isnan(one.published_train_mae)


def test_scratch_stands_beside_scratch(tmp_path: Path) -> None:
    numbers = ["", "1", "1", "0.1", "0.1", "0", "0"]
    path = write(tmp_path / "published.csv", [*SCRATCH, *numbers], [*TUNED, *numbers])
    assert len(compared(path, *cells("", None, strategy="scratch"))) == 1
    assert compared(path, *cells(size=941), *cells(strategy="two_body")) == []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("2B", "two_body"), ("3B", "three_body"), ("NPH", "new_head"), ("LAST-LAY", "last_layer")],
)
def test_strategies_have_our_names(tmp_path: Path, theirs: str, ours: str) -> None:
    row = [*"BG 941 DC 200".split(), theirs, "", "", "1", "0.1", "0.1", "0", "0"]
    published = read_published(write(tmp_path / "published.csv", row))
    assert list(published) == [Key("bg", 941, "dc", 200, ours)]


def test_runs_of_a_known_learning_rate_stand_beside_that_rate_only(tmp_path: Path) -> None:
    rows = [
        ["FE", "", "PZ", "", "1_cphd", rate, "", "1", mae, mae, "0", "0"]
        for rate, mae in (("1e-3", "0.1"), ("1e-4", "0.2"))
    ]
    published = read_published(write(tmp_path / "published.csv", *rows))
    assert list(published) == [Key("fe", 941, "pz", 500, "new_head_freeze_1")]
    ours = cells(size=941, strategy="new_head_freeze_1", rate=1e-4, target_size=500)
    (one,) = compare_with_published(by_setting(ours), published)
    assert (one.trials, one.published_trials) == (3, 1)  # of trials that are not known
    assert one.published_mae_scaled == 0.2


def test_a_repeated_trial_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "published.csv",
        [*TUNED, "", "3", "1", "0.1", "0.1", "0", "0"],
        [*TUNED, "", "", "1", "0.9", "0.9", "0", "0"],
    )
    (one,) = compared(path, *cells())
    assert (one.published_trials, one.published_mae_scaled) == (1, 0.1)


def test_both_means_are_over_the_same_trials(tmp_path: Path) -> None:
    """Some lists of labels are harder than others."""
    path = write(
        tmp_path / "published.csv",
        *([*TUNED, "", str(t), "1", "", str(t / 100), "0", "0"] for t in (2, 3, 4, 5)),
    )
    (one,) = compared(path, *cells(maes=(9.0, 1.0, 2.0, math.nan)))
    assert (one.trials, one.published_trials) == (2, 2)
    assert (one.test_mae, one.published_mae_scaled) == (1.5, pytest.approx(0.025))
    assert compared(path, *cells(maes=(9.0,))) == []


def test_a_trial_whose_lists_were_not_released_stands_beside_nothing(tmp_path: Path) -> None:
    rows = [[*SCRATCH, "", str(trial), "1", "", "0.1", "0", "0"] for trial in (4, 5)]
    rows += [["", "", "DC", *SCRATCH[3:], "", "5", "1", "", "0.1", "0", "0"]]
    published = read_published(write(tmp_path / "published.csv", *rows))
    trials = {key.target: [run.trial for run in runs] for key, runs in published.items()}
    assert trials == {"pz": ["4"], "dc": ["5"]}


def test_what_no_study_has_is_left_out(tmp_path: Path) -> None:
    numbers = ["", "1", "1", "0.1", "0.1", "0", "0"]
    path = write(
        tmp_path / "published.csv",
        [*"MPT-all union JARVIS2D-BG 90% MPT-new-head".split(), *numbers],
        [*"BG max JARVIS2D-BG 90% ALL-UF".split(), *numbers],
        [*"BG max PZ 800 ALL-UF".split(), *numbers],
    )
    assert read_published(path) == {}


def test_pretraining_on_all_others_stands_beside_theirs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "published.csv",
        [*"MPT-noPZ union PZ 800 MPT-new-head".split(), "", "1", "1", "0.1", "0.1", "0", "0"],
    )
    assert list(read_published(path)) == [Key("others", None, "pz", 800, "all_layers")]
    (one,) = compared(path, *cells("others", size=2000))
    assert one.published_mae_scaled == 0.1


def test_mistakes_are_named(tmp_path: Path) -> None:
    row = [*TUNED, "", "1", "1", "0.05", "0.03", "0.2", "0.003"]
    path = write(tmp_path / "published.csv", row)
    with pytest.raises(UserError, match=r"pz are in C/m\^2, those of the study in 'eV'"):
        compared(path, *cells(unit="eV"))
    path.write_text(path.read_text().replace("0.03", "small"))
    with pytest.raises(UserError, match="line 2: .* 'small' is not a number"):
        read_published(path)
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="lacks the columns .*fixed_mae"):
        read_published(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_published(tmp_path / "none.csv")
