"""From what a run leaves in its directory to report.html and the summary that ends the command."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import CHOSEN, ENSEMBLE, FOLDER
from jaxmat.bundles.intervals import LEFT_OUT, LEVEL
from jaxmat.data.rejects import Rejected
from jaxmat.experiments.labelled import REJECTED
from jaxmat.experiments.quickstart import count_labels
from jaxmat.experiments.single import TRANSFER
from jaxmat.experiments.workdir import FINDINGS, LOG, VERSIONS, read_metrics, read_result
from jaxmat.report.choice import COMPARISON, Option
from jaxmat.report.html import Content, picture, table
from jaxmat.report.model_card import left_out_sentence
from jaxmat.report.names import short_name, short_names
from jaxmat.report.predicted import PropertyResult
from jaxmat.report.predictions import read_predictions
from jaxmat.report.rows import read_rows
from jaxmat.report.run import About, Curve, Weights, run_page
from jaxmat.report.settings import command_line
from jaxmat.report.tables import format_number, format_quantity, with_unit
from jaxmat.runtime.files import whole_file

PAGE = "report.html"
# Names of what stands beside a result; others are shown as they are.
_WORDS = {
    "constant": "median of the training labels",
    "gaussian_process": "Gaussian process on descriptors",
    "scratch": "from random weights",
    "finetuned": "pre-trained and fine-tuned",
}

Result = Mapping[str, Any]
_PREDICTIONS = "predictions.csv"  # of several properties a file each
# What lies beside a page, in the order in which one would look.
_FILES = {
    "model": "the model: --model of predict, --start_from of finetune",
    CHOSEN: "the final model: --model of predict, --start_from of finetune",
    _PREDICTIONS: "label, prediction and interval of each crystal",
    "elements": "runs without an element",
    "comparison.csv": "all options with their errors",
    "choice.md": "the choice in words",
    "comparison.md": "the comparison in words",
    "results.csv": "all cells",
    "result.json": "the numbers of this page",
    "metrics.jsonl": "all evaluations",
    "rejected.csv": "what could not be used, and why",
    "log.txt": "what was said while it ran",
}


def write_page(workdir: Path, config: ConfigDict, result: Result) -> None:
    """Writes report.html for a finished run.

    Args:
        workdir: of the run.
        config: of the run.
        result: as in result.json.
    """
    if config.experiment == "choose":
        text = _choice_page(workdir, config, result)
    elif config.experiment == "matbench":
        text = _matbench_page(workdir, config, result)
    elif config.experiment == "quickstart":
        text = _quickstart_page(workdir, config, result)
    elif "seeds" in result:
        text = _population_page(workdir, config, result)
    else:
        text = _training_page(workdir, config, result)
    with whole_file(workdir / PAGE) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def summarize(workdir: Path, config: ConfigDict, result: Result, with_places: bool = True) -> str:
    """Returns the result of a finished run in few lines, and where things are."""
    lines = []
    for one in _all_tested(workdir, config, result):
        beside = [f"{name} {format_quantity(mae, one.unit)}" for name, mae in one.baselines.items()]
        text = f"{one.name}: test MAE {format_quantity(one.mae, one.unit)}"
        lines.append(text + (f" ({', '.join(beside)})" if beside else ""))
    if not with_places:
        return "\n".join(lines)
    run = _shown_run(workdir, config, result)
    places = [
        ("report", workdir / PAGE),
        # Several models that predict together have their run in place of a bundle.
        ("model", run if (run / ENSEMBLE).exists() else run / FOLDER),
        *(("predictions", run / f"predictions{suffix}.csv") for suffix in _suffixes(result)),
        ("log", workdir / LOG),
    ]
    lines += [f"  {name:<11} {place}" for name, place in places if place.exists()]
    return "\n".join(lines)


def _shown_run(workdir: Path, config: ConfigDict, result: Result) -> Path:
    """Returns where the model and the predictions are that a page shows."""
    if config.experiment == "choose":
        return workdir / CHOSEN
    if config.experiment == "quickstart":
        return workdir / f"seed_{result['seeds'][0]}" / "finetuned"
    return workdir / f"seed_{result['seeds'][0]}" if "seeds" in result else workdir


def _all_tested(workdir: Path, config: ConfigDict, result: Result) -> list[PropertyResult]:
    """Returns what a run of any kind predicts, and how good it is."""
    if config.experiment == "choose":
        run = _shown_run(workdir, config, result)
        return _read_tested(run, read_result(run) or result)
    if config.experiment == "matbench":
        return [_all_folds(workdir, result)]
    if config.experiment == "quickstart":
        run, maes = _shown_run(workdir, config, result), dict(result["test_mae"])
        about = {**result, "test_mae": maes.pop("finetuned"), "interval_level": LEVEL}
        (one,) = _read_tested(run, about)
        return [one._replace(baselines=_in_words(maes))]
    tested = _read_tested(_shown_run(workdir, config, result), result)
    if config.experiment != "evaluate":
        return tested
    # What the model was trained on is not known.
    constant = {"median of these labels": result["constant_test_mae"]}
    return [one._replace(baselines=constant) for one in tested]


def _training_page(workdir: Path, config: ConfigDict, result: Result) -> str:
    """Returns the page of a training or of a test."""
    tested = _all_tested(workdir, config, result)
    names = ", ".join(one.name for one in tested)
    how = {
        "scratch": "trained from random weights",
        "pretrain": "pre-trained",
        "finetune": f"fine-tuned from {short_name(config.get('start_from', ''))}, "
        f"strategy {config.get('strategy', '')}",
        "evaluate": f"test of {short_name(config.get('start_from', ''))}",
    }
    runs = [workdir, *sorted(workdir.glob("member_*"))]
    curves, along = _read_curves({r.name if r != workdir else "validation": r for r in runs})
    title = f"{names}: {how.get(config.experiment, config.experiment)}"
    constant = result.get("constant_validation_mae", 1.0 if len(tested) > 1 else None)
    about = _read_about(workdir, config, result)
    remarks = [result["verdict"]] if "verdict" in result else []
    units = {one.name: one.unit for one in tested}
    measured = result.get(LEFT_OUT, {})
    remarks += [left_out_sentence(name, units[name], one) for name, one in measured.items()]
    more = [("Elements left out of training", _left_out(units, measured))]
    return run_page(title, tested, curves, along, constant, about, remarks, more)


def _left_out(units: Mapping[str, str], measured: Mapping[str, Any]) -> list[Content]:
    """Returns the errors on crystals with each element that was left out of a training."""
    rows = [
        [with_unit(name, units[name]), element, format_number(mae)]
        for name, one in measured.items()
        for element, mae in one["mae_by_element"].items()
    ]
    return [table(["property", "element", "MAE"], rows, texts=2)] if rows else []


def _population_page(workdir: Path, config: ConfigDict, result: Result) -> str:
    """Returns the page of several seeds; the predictions are those of the first."""
    seeds = {f"seed {seed}": workdir / f"seed_{seed}" for seed in result["seeds"]}
    tested = _all_tested(workdir, config, result)
    curves, along = _read_curves(seeds)
    rows = []
    for one in tested:
        suffix = f"_{one.name}" if len(tested) > 1 else ""
        maes = result[f"test_mae{suffix}_by_seed"]
        rows += [
            [with_unit(one.name, one.unit), seed, format_number(mae)]
            for seed, mae in zip(seeds, maes, strict=True)
        ]
    return run_page(
        f"{', '.join(one.name for one in tested)}: {len(seeds)} seeds",
        tested,
        curves,
        along,
        result.get("constant_validation_mae"),
        _read_about(workdir, config, result),
        remarks=[
            f"The error is the mean of {len(seeds)} seeds; predictions are those of the first."
        ],
        more=[("Seeds", [table(["property", "seed", "test MAE"], rows, texts=2)])],
    )


def _quickstart_page(workdir: Path, config: ConfigDict, result: Result) -> str:
    """Returns the page of the quick start; predictions and curves are those of the first seed."""
    run, unit = workdir / f"seed_{result['seeds'][0]}", result["unit"]
    curves, along = _read_curves({name: run / name for name in ("finetuned", "scratch")})
    rows = [
        [_WORDS.get(name, name), format_number(result["test_mae"][name]), *map(format_number, maes)]
        for name, maes in result["test_mae_by_seed"].items()
    ]
    header = ["model", with_unit("test MAE", unit), *(f"seed {seed}" for seed in result["seeds"])]
    if len(result["seeds"]) == 1:  # whose error is the mean
        header, rows = header[:2], [row[:2] for row in rows]
    start = short_name(config.finetune.start_from)
    return run_page(
        f"{result['property']}: from {start}, and without it",
        _all_tested(workdir, config, result),
        curves,
        along,
        result.get("constant_validation_mae"),
        _read_about(workdir, config, result),
        remarks=[
            f"One model starts from the pre-trained {start}; beside it stand a network from random "
            "weights and a Gaussian process on descriptors. All of them have the same "
            f"{count_labels(result)}."
        ],
        more=[("Comparison", [table(header, rows)])],
    )


def _matbench_page(workdir: Path, config: ConfigDict, result: Result) -> str:
    """Returns the page of a Matbench task: each crystal is tested in one of its folds."""
    names = [f"fold {number}" for number in range(len(result["test_mae_by_fold"]))]
    places = [workdir / name.replace(" ", "_") for name in names]
    runs = [run for place in places for run in sorted(place.glob("seed_*")) or [place]]
    curves, along = _read_curves(
        {" ".join(run.relative_to(workdir).parts).replace("_", " "): run for run in runs}
    )
    header, columns = ["fold", with_unit("test MAE", result["unit"])], [result["test_mae_by_fold"]]
    remarks = [
        "The error is the mean over the folds, each of which is tested on crystals of its own."
    ]
    if "networks" in result:
        header.append("one network")
        columns.append(result["single_test_mae_by_fold"])
        remarks.append(
            f"What is predicted is the mean of {result['networks']} networks; the error of one "
            "network stands beside its own."
        )
    maes = [[name, *map(format_number, m)] for name, *m in zip(names, *columns, strict=True)]
    return run_page(
        f"{config.task}: {len(names)} official folds",
        _all_tested(workdir, config, result),
        curves,
        along,
        None,
        _read_about(workdir, config, result),
        remarks,
        more=[("Folds", [table(header, maes)])],
    )


def _all_folds(workdir: Path, result: Result) -> PropertyResult:
    """Returns the predictions of the test parts of all folds, and the mean of their baselines."""
    places = [workdir / f"fold_{number}" for number in range(len(result["test_mae_by_fold"]))]
    found = [_read_tested(place, read_result(place) or {})[0] for place in places]
    return found[0]._replace(
        mae=result["test_mae"],
        baselines={
            name: float(np.mean([one.baselines[name] for one in found]))
            for name in found[0].baselines
        },
        rows=[row for one in found for row in one.rows if row.split == "test"],
        note="",  # on the other parts
    )


def _choice_page(workdir: Path, config: ConfigDict, result: Result) -> str:
    """Returns the page of a choice, with the predictions of the final model."""
    final, unit = workdir / CHOSEN, result["unit"]
    curves, along = _read_curves({"final model": final})
    scored = [row for _, row in read_rows(workdir / COMPARISON, ("source", "strategy", "mae"))]
    names = short_names([row["source"] for row in scored])

    def named(text: str) -> str:
        for path in sorted(filter(None, names), key=len, reverse=True):
            text = text.replace(path, names[path])
        return text

    rows = [
        [
            names[row["source"]] or str(Option("", row["strategy"])),
            row["strategy"],
            *(format_number(float(row[name])) for name in ("mae", "mae_standard_error")),
        ]
        for row in scored
        if row["mae"]
    ]
    header = ["start", "strategy", with_unit("out-of-fold MAE", unit), "standard error"]
    options: list[Content] = [table(header, rows, texts=2)]
    figure = workdir / "comparison.png"
    options.append(picture(figure, "Out-of-fold MAE of the options with its standard error."))
    for heading, reasons in (
        ("left out", result["left_out_options"]),
        ("could not be trained", result["failed"]),
    ):
        if reasons:
            pairs = [[named(text) for text in pair] for pair in reasons.items()]
            options.append(table([heading, "reason"], pairs, texts=2))
    about = _read_about(workdir, config, result)
    return run_page(
        f"{result['property']}: what to start from, and how to train",
        _all_tested(workdir, config, result),
        curves,
        along,
        result.get("constant_validation_mae"),
        about._replace(
            findings=[*dict.fromkeys([*about.findings, *(_read_json(final / FINDINGS) or [])])],
            weights=_sum_up(_read_json(final / TRANSFER) or []),
        ),
        remarks=[named(result["recommendation"])],
        more=[("Options", options)],
    )


def _read_tested(workdir: Path, result: Result) -> list[PropertyResult]:
    """Returns the predictions of a run and how good they are, by property."""
    tested = []
    how = result.get("train_and_validation_predictions")
    note = f"Predictions of train and validation are {how}." if how else ""
    for about, suffix in zip(result.get("properties") or [result], _suffixes(result), strict=True):
        file = workdir / f"predictions{suffix}.csv"
        tested.append(
            PropertyResult(
                about["property"],
                about["unit"],
                about.get("log", False),
                result.get("interval_level"),
                result[f"test_mae{suffix}"],
                _baselines(result, suffix),
                read_predictions(file) if file.exists() else [],
                note,
            )
        )
    return tested


def _suffixes(result: Result) -> list[str]:
    """Returns what the names of metrics and files have for each property, "" for a single one."""
    return [f"_{about['property']}" for about in result.get("properties") or []] or [""]


def _baselines(result: Result, suffix: str = "") -> dict[str, float]:
    """Returns the test MAE of whatever simple stands beside the result, by name."""
    pattern = re.compile(rf"(\w+)_test_mae{re.escape(suffix)}")
    found = {match[1]: mae for key, mae in result.items() if (match := pattern.fullmatch(key))}
    return _in_words({name: mae for name, mae in found.items() if mae is not None})


def _in_words(maes: Mapping[str, float]) -> dict[str, float]:
    return {_WORDS.get(name, name.replace("_", " ")): mae for name, mae in maes.items()}


def _read_curves(runs: Mapping[str, Path]) -> tuple[dict[str, Curve], str]:
    """Returns the evaluations of trainings, and what they go along: "epoch", or "step" of old."""
    records = {name: found for name, run in runs.items() if (found := read_metrics(run))}
    along = "epoch" if all("epoch" in one for of in records.values() for one in of) else "step"
    curves = {}
    for name, of in records.items():
        error = next(key for key in ("validation_mae", "validation_relative_mae") if key in of[0])
        columns = [[one.get(key) for one in of] for key in (along, error, "train_loss")]
        curves[name] = Curve(*(np.array(column, dtype=float) for column in columns))
    return curves, along


def _read_about(workdir: Path, config: ConfigDict, result: Result) -> About:
    """Returns how a run was made, as far as its directory tells."""
    versions = _read_json(workdir / VERSIONS) or {}
    command = versions.pop("command", [])
    file = workdir / REJECTED
    rejected = read_rows(file, Rejected._fields) if file.exists() else []
    return About(
        findings=_read_json(workdir / FINDINGS) or [],
        left_out=result.get("left_out", {}),
        rejected=[[row[name] for name in Rejected._fields] for _, row in rejected],
        weights=_sum_up(_read_json(workdir / TRANSFER) or []),
        settings=config.to_dict(),
        versions=versions,
        command=command_line(command) if command else "",
        files=_describe_files(workdir, result),
    )


def _describe_files(workdir: Path, result: Result) -> list[str]:
    """Returns the names of what lies beside a page, and what each is."""
    names = {_PREDICTIONS: [f"predictions{suffix}.csv" for suffix in _suffixes(result)]}
    return [
        f"{name}: {what}"
        for known, what in _FILES.items()
        for name in names.get(known, [known])
        if (workdir / name).exists()
    ]


def _sum_up(fates: Sequence[Mapping[str, Any]]) -> list[Weights]:
    """Returns what became of the weights, by part of the network."""
    numbers: Counter[tuple[str, str, str]] = Counter()
    for fate in fates:
        if fate["name"].startswith("params/"):
            part = "/".join(fate["name"].split("/")[1:3])
            origin = "new" if fate["action"] == "re-initialised" else fate["action"]
            trained = {True: "trained", False: "frozen", None: "–"}[fate.get("trains")]
            numbers[part, origin, trained] += fate["size"]
    return [Weights(part, n, origin, trained) for (part, origin, trained), n in numbers.items()]


def _read_json(file: Path) -> Any:
    """Returns what a file of the run holds, None where it is not there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
