"""The report of a study: one page with everything in it, whatever is missing in the study."""

from __future__ import annotations

import base64
import csv
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jaxmat.report.predictions import Prediction, write_predictions
from jaxmat.report.study.report import write_report
from jaxmat.report.study.results import CellResult

SETTINGS = {"protocol": "sound", "data": {"path": "<b>&\"'"}, "empty": {}}


def cell(folder: Path, source: str, target: str, size: int, **fields: Any) -> CellResult:
    """A cell that is done, with its predictions."""
    nan = math.nan
    kind, strategy = ("finetune", "all_layers") if source else ("scratch", "scratch")
    row = CellResult(
        *("", kind, source, 941 if source else None, target, size, strategy, "sound", 1e-3, 1),
        *("done", f"name of {target}", "eV", size - 2, 2, 3, 1.0 + size / 100, nan, 0.5, 0.1, 0.5),
        *(nan, nan, 9.0, 60.0, ""),
    )._replace(**fields)
    name = re.sub(r"\W+", "-", "-".join(map(str, (*row[:13], row.seed))))
    row = row._replace(cell=name, directory=name)
    if row.status == "done":
        (folder / name).mkdir()
        tested = [Prediction(f"c{i}", "test", i, i + row.test_mae, "eV") for i in range(3)]
        write_predictions(folder / name / "predictions.csv", tested)
    return row


class Page(HTMLParser):
    """What a page shows, and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.text += data


def report(folder: Path, rows: Sequence[CellResult], **options: Any) -> Page:
    file = write_report(rows, folder, title="A <study> & more", settings=SETTINGS, **options)
    page = Page(file.read_text(encoding="utf-8"))
    assert page.open == []
    assert all(link.startswith(("data:image/png;base64,", "#section-")) for link in page.links)
    inside = {base64.b64decode(link[22:]) for link in page.links if link.startswith("data:")}
    assert inside == {file.read_bytes() for file in (folder / "figures").iterdir()}
    return page


def study(folder: Path) -> list[CellResult]:
    """Two targets, two sources, two label counts, three trials, two strategies and two rates."""
    rows = []
    for trial in (1, 2, 3):
        for target, size in (("dc", 10), ("dc", 100), ("ph", 10), ("ph", 100)):
            base = {"trial": trial, "test_mae": trial * 8.0 / size, "validation_mae": 0.1}
            rows.append(cell(folder, "", target, size, **base))
            for source in ("fe", "ph" if target == "dc" else "dc"):
                tuned = {**base, "test_mae": trial * 4.0 / size}
                rows.append(cell(folder, source, target, size, **tuned))
        rows.append(cell(folder, "fe", "dc", 10, trial=trial, strategy="new_head"))
        rows.append(cell(folder, "fe", "dc", 10, trial=trial, learning_rate=1e-4))
    failed = {"status": "failed", "reason": "<b>too hot</b>", "test_mae": math.nan}
    rows.append(cell(folder, "fe", "dc", 10, trial=4, **failed))
    rows.append(cell(folder, "fe", "dc", 100, trial=4, status="missing", test_mae=math.nan))
    rows.append(cell(folder, "fe", "dc", 100, trial=5, test_mae=math.nan))
    return rows


def test_the_whole_report(tmp_path: Path) -> None:
    page = report(tmp_path, study(tmp_path), command="python run.py --a='b' > c")
    assert page.headings == [
        *("Cells", "Gain over training from scratch", "What validation picks", "Learning curves"),
        *(
            "Strategies",
            "Learning rates",
            "Predictions against labels",
            "Spread of samples and of seeds",
        ),
        *("All test errors", "Failures", "How it was made"),
    ]
    assert "A <study> & more" in page.text and "python run.py --a='b' > c" in page.text
    assert "<b>too hot</b>" in page.text and "diverged" in page.text
    assert "data.path<b>&\"'" in page.text
    assert "Test MAE of fine-tuned networks: −" in page.text
    assert "Not identified" in page.text and "43 of 45 cells are done" in page.text

    with (tmp_path / "relative_to_scratch.csv").open() as stream:
        relative = list(csv.DictReader(stream))
    assert len(relative) == 10
    all_layers = ("all_layers", "0.001")
    halves = [row for row in relative if (row["strategy"], row["learning_rate"]) == all_layers]
    assert [float(row["change"]) for row in halves] == [pytest.approx(-0.5)] * 8
    with (tmp_path / "summary.csv").open() as stream:
        summary = {tuple(row.values())[:8]: row for row in csv.DictReader(stream)}
    scratch = summary["scratch", "", "", "dc", "10", "scratch", "sound", "0.001"]
    assert float(scratch["test_mae"]) == pytest.approx(1.6)
    assert float(scratch["test_mae_spread"]) == pytest.approx(0.8)


def test_two_seeds_tell_the_spreads_apart(tmp_path: Path) -> None:
    rows = [
        cell(tmp_path, "", "dc", 10, trial=trial, seed=seed, test_mae=trial + seed / 2)
        for trial in (1, 2)
        for seed in (0, 1)
    ]
    assert (
        "Not identified"
        not in report(tmp_path, [r._replace(cell=str(i)) for i, r in enumerate(rows)]).text
    )


@pytest.mark.parametrize(
    ("wanted", "headings"),
    [
        (lambda row: False, {"Cells", "How it was made"}),
        (lambda row: row.status != "done", {"Cells", "Failures", "How it was made"}),
        (
            lambda row: row.kind == "scratch",
            {"Cells", "Learning curves", "Predictions against labels", "All test errors"}
            | {"Spread of samples and of seeds", "How it was made"},
        ),
        (
            lambda row: row.kind == "finetune" and (row.target_size, row.trial) == (100, 1),
            {"Cells", "What validation picks", "Predictions against labels", "All test errors"}
            | {"Spread of samples and of seeds", "How it was made"},
        ),
        (
            lambda row: (row.target, row.target_size, row.trial) == ("ph", 10, 1),
            {"Cells", "Gain over training from scratch", "What validation picks"}
            | {
                "Predictions against labels",
                "All test errors",
                "Spread of samples and of seeds",
                "How it was made",
            },
        ),
    ],
    ids=["nothing", "nothing done", "scratch alone", "no scratch", "one of each"],
)
def test_what_would_be_empty_is_left_out(tmp_path: Path, wanted: Any, headings: set[str]) -> None:
    assert set(report(tmp_path, list(filter(wanted, study(tmp_path)))).headings) == headings


def test_validation_picks_and_the_best_by_hindsight_stands_apart(tmp_path: Path) -> None:
    """A setting with fewer trials is not compared, nor one without a validation error."""
    rows = [
        cell(tmp_path, source, "dc", 100, trial=trial, validation_mae=picked, test_mae=tested)
        for trial in (1, 2)
        for source, picked, tested in (
            *(("", 0.75, 7.0), ("fe", 0.25, 3.0), ("ph", 0.5, 2.0)),
            ("gv", math.nan, 1.0),
        )
    ]
    rows.append(cell(tmp_path, "bg", "dc", 100, validation_mae=0.1, test_mae=0.5))
    page = report(tmp_path, rows)
    assert "What validation picks" in page.headings
    assert page.text.count("dc (eV)soundfe 941ph 9411000.2503.000 (2)2.000 (2)7.000 (2)") == 1
    with (tmp_path / "summary.csv").open() as stream:
        summary = {row["source"]: row for row in csv.DictReader(stream)}
    assert (summary["fe"]["validation_mae"], summary["gv"]["validation_mae"]) == ("0.25", "")


def test_a_report_takes_the_place_of_the_last(tmp_path: Path) -> None:
    rows = [cell(tmp_path, source, "dc", 10) for source in ("", "fe")]
    report(tmp_path, rows)
    assert (tmp_path / "figures" / "relative_to_scratch.png").exists()
    report(tmp_path, rows[:1])
    assert not (tmp_path / "figures" / "relative_to_scratch.png").exists()


def test_missing_predictions_leave_out_what_needs_them(tmp_path: Path) -> None:
    rows = [cell(tmp_path, source, "dc", 10)._replace(directory="") for source in ("", "fe")]
    page = report(tmp_path, rows)
    assert "Predictions against labels" not in page.headings
    assert "Gain over training from scratch" in page.headings


def test_published_results_stand_beside(tmp_path: Path) -> None:
    path = tmp_path / "published.csv.in"
    columns = "pt_property pt_size ft_property ft_size strategy learning_rate trial use"
    path.write_text(
        f"{columns} fixed_mae fixed_r2 train_mae\n,,EBG,10,SCRATCH,,1,1,0.1,0.5,0.01\n".replace(
            " ", ","
        )
    )
    page = report(tmp_path, [cell(tmp_path, "", "ebg", 10, test_mae=1.17)], published=path)
    assert "Beside the published results" in page.headings
    assert "+100 %" in page.text  # half the range is 5.85 eV, so theirs is 0.585 eV
    with (tmp_path / "published.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["published_mae"]) == pytest.approx(0.585)
