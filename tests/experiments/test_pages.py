"""What ends a run: a page that needs nothing else, a log, and a summary of where things are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from jaxmat.experiments import run
from jaxmat.experiments.closed_form import METHOD
from jaxmat.experiments.pages import summarize, write_page
from jaxmat.experiments.workdir import read_result
from jaxmat.report.predictions import Prediction, write_predictions
from jaxmat.runtime.logs import SaidOnce, logged_to

from .conftest import small_finetune


def test_a_run_ends_with_a_page_and_a_summary(
    tmp_path: Path, pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    config = small_finetune(pretrained, "last_layer")
    result = run(config, tmp_path)
    assert result is not None
    summary = caplog.messages[-1]
    assert f"eij_max: test MAE {result['test_mae']:.4g}"[:24] in summary
    assert "median of the training labels" in summary and "C/m^2" in summary
    for place in ("report.html", "model", "predictions.csv", "log.txt"):
        assert str(tmp_path / place) in summary and (tmp_path / place).exists()
    page = (tmp_path / "report.html").read_text()
    assert f"fine-tuned from {pretrained.name}, strategy last_layer" in page
    for text in ("frozen", "trained", "copied", "epoch", "bundled:piezoelectric"):
        assert text in page
    assert "test MAE" in (tmp_path / "log.txt").read_text()
    (tmp_path / "report.html").write_text("kept")
    caplog.clear()
    run(config, tmp_path)  # finished: says so again, and writes nothing
    assert caplog.messages[-1] == summary and (tmp_path / "report.html").read_text() == "kept"


def test_a_page_tells_of_random_weights(pretrained: Path) -> None:
    page, result = (pretrained / "report.html").read_text(), read_result(pretrained)
    assert result is not None and "e_form: trained from random weights" in page
    assert "://" not in page.replace("http://www.w3.org", "")  # nothing is fetched


def leave_run(folder: Path, names: Sequence[str], **fields: Any) -> dict[str, Any]:
    """Leaves predictions of properties, a file for each of several; returns the result."""
    about = [{"property": name, "unit": "eV", "log": False} for name in names]
    suffixes = [f"_{name}" for name in names] if len(names) > 1 else [""]
    rows = [
        Prediction(f"x{i}", part, i, i + 0.5, "eV")
        for part in ("train", "validation", "test")
        for i in range(4)
    ]
    for suffix in suffixes:
        write_predictions(folder / f"predictions{suffix}.csv", rows)
    several = {"properties": about} if len(names) > 1 else about[0]
    return {**several, **{f"test_mae{suffix}": 0.5 for suffix in suffixes}, **fields}


def test_predictions_of_each_property_are_named(tmp_path: Path) -> None:
    config = ConfigDict({"experiment": "scratch"})
    result = leave_run(tmp_path, ["a_b", "σ"])
    summary = summarize(tmp_path, config, result)
    write_page(tmp_path, config, result)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("predictions_a_b.csv", "predictions_σ.csv"):
        assert f"  predictions {tmp_path / name}" in summary.splitlines()
        assert f"<li>{name}: label, prediction and interval of each crystal</li>" in page
    assert "predictions.csv" not in summary + page


def test_a_page_says_which_predictions_are_leave_one_out(tmp_path: Path) -> None:
    config, said = ConfigDict({"experiment": "scratch"}), "train and validation are leave-one-out"
    for fields, there in (({"train_and_validation_predictions": METHOD}, True), ({}, False)):
        write_page(tmp_path, config, leave_run(tmp_path, ["gap"], **fields))
        assert (said in (tmp_path / "report.html").read_text(encoding="utf-8")) == there


def test_a_log_keeps_what_is_said_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    logger = logging.getLogger("jaxmat.somewhere")
    for again in range(2):
        with logged_to(tmp_path / "log.txt"):
            for _ in range(3):
                logger.warning("odd: %d", again)
                logger.info("step")
    logger.warning("after the end")
    lines = [line[24:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == ["odd: 0", "step", "step", "step", "odd: 1", "step", "step", "step"]
    with logged_to(tmp_path / "nowhere" / "log.txt"):
        logger.info("goes on")
    assert "nowhere" in caplog.text and "goes on" in caplog.text


def test_only_warnings_are_said_once() -> None:
    once = SaidOnce()

    def passes(level: int) -> bool:
        return once.filter(logging.LogRecord("jaxmat", level, "", 0, "the same", None, None))

    assert [passes(logging.WARNING) for _ in range(2)] == [True, False]
    assert all(passes(logging.INFO) and passes(logging.ERROR) for _ in range(2))
