"""Published results: which runs stand beside a setting, and in which units."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from jaxmat.errors import UserError
from jaxmat.report.study.analysis import Setting, Summary
from jaxmat.report.study.published import (
    Comparison,
    Key,
    compare_with_published,
    read_published,
)

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


def summary(
    source: str = "fe",
    size: int | None = 1000,
    strategy: str = "all_layers",
    rate: float = 1e-3,
    unit: str = "C/m^2",
) -> Summary:
    kind = "finetune" if source else "scratch"
    setting = Setting(kind, source, size, "pz", 800, strategy, "sound", rate)
    nan = math.nan
    return Summary(setting, unit, 3, 3, 0, 2.0, 0.5, nan, nan, 0.1, nan, 9, 9, 1.0, nan, 3.0, 60.0)


def compared(path: Path, *summaries: Summary) -> list[Comparison]:
    return compare_with_published({s.setting: s for s in summaries}, read_published(path))


def test_labels_are_corrected_and_units_are_those_of_the_study(tmp_path: Path) -> None:
    path = write(
        tmp_path / "published.csv",
        [*TUNED, "", "1", "1", "0.05", "0.03", "0.2", "0.003"],
        [*TUNED, "", "2", "1", "0.07", "0.05", "0.4", "0.005"],
        [*TUNED, "", "3", "0", "9.00", "9.00", "9.0", "9.000"],
    )
    (one,) = compared(path, summary())
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
    (one,) = compared(path, summary())
    assert math.isnan(one.published_mae_spread) and math.isnan(one.published_train_mae)


def test_scratch_stands_beside_scratch(tmp_path: Path) -> None:
    numbers = ["", "1", "1", "0.1", "0.1", "0", "0"]
    path = write(tmp_path / "published.csv", [*SCRATCH, *numbers], [*TUNED, *numbers])
    assert len(compared(path, summary("", None, strategy="scratch"))) == 1
    assert compared(path, summary(size=941), summary(strategy="two_body")) == []


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
    ours = summary(size=941, strategy="new_head_freeze_1", rate=1e-4)
    ours = ours._replace(setting=ours.setting._replace(target_size=500))
    (one,) = compare_with_published({ours.setting: ours}, published)
    assert one.published_mae_scaled == 0.2


def test_a_repeated_trial_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "published.csv",
        [*TUNED, "", "5", "1", "0.1", "0.1", "0", "0"],
        [*TUNED, "", "", "1", "0.9", "0.9", "0", "0"],
    )
    (one,) = compared(path, summary())
    assert (one.published_trials, one.published_mae_scaled) == (1, 0.1)


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
    ours = summary(size=2000)
    ours = ours._replace(setting=ours.setting._replace(source="others", target_size=800))
    (one,) = compare_with_published({ours.setting: ours}, read_published(path))
    assert one.published_mae_scaled == 0.1


def test_mistakes_are_named(tmp_path: Path) -> None:
    row = [*TUNED, "", "1", "1", "0.05", "0.03", "0.2", "0.003"]
    path = write(tmp_path / "published.csv", row)
    with pytest.raises(UserError, match=r"pz are in C/m\^2, those of the study in 'eV'"):
        compared(path, summary(unit="eV"))
    path.write_text(path.read_text().replace("0.03", "small"))
    with pytest.raises(UserError, match="line 2: .* 'small' is not a number"):
        read_published(path)
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="lacks the columns .*fixed_mae"):
        read_published(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_published(tmp_path / "none.csv")
