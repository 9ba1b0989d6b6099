"""No page, of whatever kind, has an element, an attribute or a script of the data's making."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.experiments.pages import write_page
from jaxmat.report.choice import COMPARISON, Option, compare, draw_comparison, write_comparison
from jaxmat.report.forecast import Predicted, forecast_page
from jaxmat.report.predictions import Prediction, write_predictions
from jaxmat.report.rows import write_rows
from jaxmat.report.study.report import write_report
from jaxmat.report.study.results import CellResult

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{7*7}}\u2028$\\frac{$"
NAN = math.nan


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self._kind = dict(attrs).get("type") or "code" if tag == "script" else None
        assert all("://" not in (value or "") and "alert" not in name for name, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        self._kind = None

    def handle_data(self, data: str) -> None:
        if self._kind == "application/json":
            json.loads(data)
        (self.scripts if self._kind == "code" else self.texts).append(data)


@dataclasses.dataclass
class Run:
    """Leaves in a folder what a run leaves, with a text in every place that data can fill."""

    folder: Path
    text: str

    def training(self, place: str = "", **fields: Any) -> dict[str, Any]:
        """Leaves a training or a test; returns its result."""
        folder, text = self.folder / place, self.text
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(
            folder / "predictions.csv",
            [
                Prediction(f"{text}{i}", ("test", "train")[i % 2], i, i + 0.5, text, i - 1, i + 1)
                for i in range(1, 6)
            ],
        )
        records = [
            {"step": n, "epoch": n, "validation_mae": 1 / n, "train_loss": 1} for n in (1, 2)
        ]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
        write_rows(folder / "rejected.csv", ("id", "place", "reason"), [[text, text, text]])
        fate = {"name": f"params/{text}/kernel", "action": text, "size": 3, "trains": True}
        write_json(folder / "transfer.json", [fate])
        write_json(folder / "findings.json", [text])
        write_json(folder / "versions.json", {"command": ["jaxmat", text], text: text})
        result = {
            "property": text,
            "unit": text,
            "crystals": {"train": 2, "validation": 0, "test": 3},
            "interval_level": 0.9,
            "test_mae": 0.5,
            "constant_test_mae": 1.0,
            "constant_validation_mae": 1.0,
            "left_out": {text: 2},
            "verdict": text,
            **fields,
        }
        write_json(folder / "result.json", result)
        return result

    def population(self) -> dict[str, Any]:
        for seed in (0, 1):
            self.training(f"seed_{seed}")
        return self.training(seeds=[0, 1], test_mae_by_seed=[0.5, 0.5])

    def quickstart(self) -> dict[str, Any]:
        for name in ("finetuned", "scratch"):
            self.training(f"seed_0/{name}")
        maes = {"constant": 1.0, "scratch": 0.7, "finetuned": 0.5}
        by_seed = {name: [mae] for name, mae in maes.items()}
        return self.training(seeds=[0], test_mae=maes, test_mae_by_seed=by_seed)

    def matbench(self) -> dict[str, Any]:
        for fold in (0, 1):
            self.training(f"fold_{fold}")
        return self.training(test_mae_by_fold=[0.5, 0.5])

    def choose(self) -> dict[str, Any]:
        self.training("final")
        option = Option(self.text, self.text)
        labels = np.arange(6.0)
        comparison = compare(
            {option: labels + 0.1, Option("", ""): labels + 0.3},
            *(labels, np.full(6, 2.5)),
            **{"folds": 2, "done": 2},
            n_test=3,
            unit=self.text,
        )
        write_comparison(self.folder / COMPARISON, comparison, {option: "x", Option("", ""): "y"})
        draw_comparison(self.folder / "comparison.png", comparison, self.text)
        reasons = {self.text: self.text}
        return self.training(recommendation=self.text, left_out_options=reasons, failed=reasons)


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content))


def of_run(experiment: str, leave: Callable[[Run], Mapping[str, Any]]) -> Callable[..., str]:
    def write(folder: Path, text: str) -> str:
        folder.mkdir()
        result = leave(Run(folder, text))
        fields: dict[str, Any] = {
            "experiment": experiment,
            "start_from": text,
            "strategy": text,
            "task": text,
        }
        fields |= {"data": {"path": text}, "finetune": {"start_from": text}}
        write_page(folder, ConfigDict(fields), result)
        return (folder / "report.html").read_text(encoding="utf-8")

    return write


def of_study(folder: Path, text: str) -> str:
    folder.mkdir()
    write_predictions(folder / "predictions.csv", [Prediction(text, "test", 1.0, 1.5, text)])
    rows = [
        CellResult(
            *(f"{source}{trial}", "finetune" if source else "scratch", source, 10, text, size),
            *(text if source else "scratch", text, 1e-3, trial, "done", text, text, 8, 2, 3),
            *(1.0 + size / 100 + trial / 10, NAN, 0.5, 0.1, 0.5, NAN, NAN, 9.0, 60.0, "."),
        )
        for source in ("", text)
        for size in (10, 100)
        for trial in (1, 2)
    ]
    rows.append(rows[-1]._replace(cell=text, status="failed", reason=text))
    file = write_report(rows, folder, title=text, settings={text: text}, command=text)
    return file.read_text(encoding="utf-8")


def of_predictions(folder: Path, text: str) -> str:
    rows = [
        Predicted(f"{text}1", text, text, 1.5, 1.0, 2.0, ""),
        Predicted(f"{text}2", text, text, NAN, NAN, NAN, f"unreadable: {text}"),
    ]
    return forecast_page(rows, [text], text, text)


PAGES = {
    "train": of_run("scratch", Run.training),
    "finetune": of_run("finetune", Run.training),
    "evaluate": of_run("evaluate", Run.training),
    "population": of_run("scratch", Run.population),
    "quickstart": of_run("quickstart", Run.quickstart),
    "matbench": of_run("matbench", Run.matbench),
    "choose": of_run("choose", Run.choose),
    "study": of_study,
    "predict": of_predictions,
}


@pytest.mark.parametrize("kind", PAGES)
def test_texts_of_data_stay_texts(kind: str, tmp_path: Path) -> None:
    plain = Page(PAGES[kind](tmp_path / "plain", "gap"))
    hostile = Page(PAGES[kind](tmp_path / "hostile", HOSTILE))
    assert hostile.elements == plain.elements
    assert hostile.scripts == plain.scripts  # the page's own, and nothing else that runs
    assert any("<img src=x onerror=alert(2)>" in text for text in hostile.texts)
