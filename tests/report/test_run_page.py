"""The page of a run: all of it there, and none of it run, whatever ids, units and tables are."""

from __future__ import annotations

import html
import json
import math
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmat.report.predicted import PropertyResult, wilson
from jaxmat.report.predictions import Prediction
from jaxmat.report.run import About, Curve, Weights, run_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'\u2028\x00\udcff"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements, attributes, texts and JSON of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.json: list[Any] = []
        self.text = ""
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "meta"):
            kind = dict(attrs).get("type")
            self._open.append("json" if kind == "application/json" else tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() in (tag, "json")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "json":
            self.json.append(json.loads(data))
        elif self._open and self._open[-1] not in ("script", "style"):
            self.text += data
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)


def predicted(n: int = 40, text: str = "gap", unit: str = "eV", **fields: Any) -> PropertyResult:
    labels = np.random.default_rng(0).lognormal(size=n)
    rows = [
        Prediction(f"{text}{i}", ("test", "train")[i % 2], y, y + 0.1 * (i % 7), unit, y - 1, y + 1)
        for i, y in enumerate(labels.tolist())
    ]
    one = PropertyResult(text, unit, True, 0.9, 0.25, {"median of the training labels": 0.5}, rows)
    return one._replace(**fields)


def about(text: str = "x") -> About:
    return About(
        findings=[text],
        left_out={text: 2},
        rejected=[(text, text, f"unreadable: {text}")],
        weights=[Weights(text, 1000, "copied", "frozen")],
        settings={"data": {"path": text}},
        versions={"jax": text},
        command=text,
        files=[text],
    )


def curve() -> Curve:
    return Curve(np.array([1.0, 2.0]), np.array([2.0, np.nan]), np.array([1.0, 0.5]))


def page(*properties: PropertyResult, text: str = "x") -> Page:
    curves = {text: curve()}
    return Page(run_page(text, properties, curves, "epoch", 0.7, about(text), [text]))


def test_the_result_stands_first_beside_what_is_simple() -> None:
    found = page(predicted())
    start = found.text[: found.text.index("Predictions")]
    assert "Test MAE 0.2500 eV on 20 crystals" in start
    assert "median of the training labels: 0.5000 eV (−50\u00a0%)" in start
    assert found.headings == [
        *("Predictions", "Intervals", "Worst predictions", "Training", "Data", "Weights"),
        *("How it was made", "Files"),
    ]


def test_points_tell_what_they_are() -> None:
    one = predicted()
    points = next(content for content in page(one).json if "group" in content)
    rows = sorted(one.rows, key=lambda row: row.split)
    assert points["names"] == [row.id for row in rows]
    assert points["series"] == ["test", "train"]
    for name in ("target", "prediction", "low", "high"):
        np.testing.assert_allclose(
            points["columns"][name], [getattr(row, name) for row in rows], rtol=1e-5
        )


def test_the_worst_are_listed_with_their_errors() -> None:
    one = predicted()
    test = [row for row in one.rows if row.split == "test"]
    worst = max(test, key=lambda row: abs(row.prediction - row.target))
    text = page(one).text
    listed = text[text.index("Worst predictions", text.index("crystals like these")) :]
    assert worst.id in listed and "+0.6" in listed


def test_equal_labels_have_no_r2_and_zero_has_no_minus() -> None:
    rows = [Prediction(f"x{i}", "test", -0.0, -0.0, "eV") for i in range(3)]
    close = {"constant": 0.2501}
    found = page(predicted(rows=rows, baselines=close))
    (legend,) = next(chart["legend"] for chart in found.json if chart.get("legend"))
    assert legend == "test: 3 crystals, MAE 0.000 eV"
    assert "constant: 0.2501 eV (0\u00a0%)" in found.text
    listed = found.text[found.text.rindex("Worst predictions") : found.text.rindex("Training")]
    assert "0.0000.0000.000–" in listed and "−" not in listed


def test_a_note_on_the_predictions_stands_at_their_errors() -> None:
    note = "Predictions of train are leave-one-out."
    found = page(predicted(note=note))
    assert f"on the line both are equal. {note}" in found.text


def test_hostile_texts_stay_texts() -> None:
    plain = page(predicted(), predicted(text="shear"))
    hostile = page(predicted(text=HOSTILE, unit=HOSTILE), predicted(text="shear"), text=HOSTILE)
    assert hostile.tags == plain.tags  # nothing of it became an element
    assert not any(name.startswith("on") for name, _ in hostile.attributes)
    assert "alert(1)" in hostile.text and "\x00" not in hostile.text
    assert all("://" not in (value or "") for _, value in hostile.attributes)


@pytest.mark.parametrize(
    "one",
    [
        predicted(0),
        predicted(level=None),
        predicted(mae=math.nan, baselines={}),
        predicted(rows=[Prediction("a", "test", 1.0, math.nan, "eV")]),
        predicted(rows=[Prediction("a", "test", math.nan, 1.0, "eV")]),
        predicted(rows=[Prediction("a", "test", -1.0, 1.0, "eV", 1.0, 1.0)]),
    ],
)
def test_what_is_missing_is_left_out(one: PropertyResult) -> None:
    nothing = About([], {}, [], [], {}, {}, "", [])
    found = Page(run_page("title", [one], {}, "step", None, nothing))
    assert "Training" not in found.headings and "Weights" not in found.headings
    assert "Nothing odd was noticed" in found.text


def test_several_properties_have_a_part_each() -> None:
    found = page(predicted(), predicted(text="shear modulus", unit="GPa"))
    assert "Test MAE of gap" in found.text and "Test MAE of shear modulus" in found.text
    assert found.tags.count("canvas") == 0 and found.tags.count("figure") == 8


def test_confidence_of_a_share() -> None:
    """The example of Newcombe, Statistics in Medicine 17, 857 (1998), table I."""
    np.testing.assert_allclose(wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_ten_thousand_points(tmp_path: Path) -> None:
    """Without an error, and with a word on the point that the keyboard goes to."""
    text = run_page("title", [predicted(10_000)], {"x": curve()}, "epoch", 0.7, about())
    assert len(text) < 2**20
    probe = """<script>
      window.addEventListener("error", (event) => document.title = `error: ${event.message}`);
      setTimeout(() => {
        const canvas = document.querySelector("canvas");
        canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
        document.title += `|${document.querySelectorAll("canvas").length}|${canvas.width > 200}`;
      }, 500);
    </script></head>"""
    file = tmp_path / "report.html"
    file.write_text(text.replace("</head>", probe), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
        + ["--dump-dom", f"file://{file}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>title|5|true</title>" in done.stdout
    assert "90\u00a0% interval" in html.unescape(done.stdout)
    assert 'aria-pressed="true"' in done.stdout  # the legend of the two curves
