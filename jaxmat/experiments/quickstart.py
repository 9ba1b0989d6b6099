"""A pre-trained model fine-tuned, and what is simpler on the same labels, compared."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.experiments import defaults
from jaxmat.experiments.outcome import validation_curve
from jaxmat.experiments.total import Total, Work
from jaxmat.experiments.workdir import RESULT, write_json
from jaxmat.report.plots import learning_curves, parity_plot
from jaxmat.report.predictions import read_predictions
from jaxmat.report.tables import format_change, format_table, with_unit

_logger = logging.getLogger(__name__)

Result = dict[str, Any]
# Runs a config in a directory unless it is finished there; None where it was stopped.
Run = Callable[[ConfigDict, Path], Result | None]

_RUNS = ("finetuned", "scratch")
_WORDS = {
    "constant": "constant (median of the training labels)",
    "gaussian_process": "Gaussian process on descriptors",
    "scratch": "network from random weights",
    "finetuned": "from the pre-trained model",
}


def quickstart(config: ConfigDict, workdir: Path, run: Run) -> Result | None:
    """Shows what a pre-trained model is worth on a small set, for one or several seeds.

    Each seed draws its own labels (the test part is the same for all) and its own weights;
    training from scratch gets the labels, the steps and the settings of fine-tuning.

    Args:
        config: the config, with a part `finetune` and the `network` with random weights.
        workdir: gets a directory seed_<n>/<run> for each run, and the comparison.
        run: how a part is run.

    Returns:
        The comparison, or None where a run was stopped.
    """
    seeds = list(range(config.seed, config.seed + config.seeds))
    results: dict[str, list[Result]] = {name: [] for name in _RUNS}
    parts = {
        f"{name} (seed {seed})": (name, part, _directory(workdir, seed, name))
        for seed in seeds
        for name, part in _parts(config, seed).items()
    }
    total = Total(
        {
            title: Work(1.0, name)
            for title, (name, _, place) in parts.items()
            if not (place / RESULT).exists()
        }
    )
    for title, (name, part, place) in parts.items():
        result = total.run(title, functools.partial(run, part, place))
        if result is None:
            return None
        results[name].append(result)
    comparison = _compare(results, seeds)
    write_json(workdir / RESULT, comparison)
    finetune = config.finetune
    _write_report(workdir, comparison, seeds[0], finetune.start_from, finetune.strategy)
    return comparison


def _directory(workdir: Path, seed: int, name: str) -> Path:
    return workdir / f"seed_{seed}" / name


def _parts(config: ConfigDict, seed: int) -> dict[str, ConfigDict]:
    """Returns the config of each run of a seed, in order."""
    finetune, scratch = ConfigDict(config.finetune.to_dict()), defaults.scratch()
    scratch.data, scratch.training = finetune.data, finetune.training
    scratch.network = ConfigDict(config.network.to_dict())
    parts = dict(zip(_RUNS, (finetune, scratch), strict=True))
    for part in parts.values():
        part.seed = seed
    return parts


def _compare(results: dict[str, list[Result]], seeds: list[int]) -> Result:
    """Returns test errors by name, a number for each seed."""
    target = results["finetuned"]
    maes = {
        "constant": [result["constant_test_mae"] for result in target],
        "gaussian_process": [result["gaussian_process_test_mae"] for result in target],
        "scratch": [result["test_mae"] for result in results["scratch"]],
        "finetuned": [result["test_mae"] for result in target],
    }
    return {
        "property": target[0]["property"],
        "unit": target[0]["unit"],
        "log": target[0]["log"],
        "constant_validation_mae": target[0]["constant_validation_mae"],
        "seeds": seeds,
        "crystals": target[0]["crystals"],
        "test_mae": {name: float(np.mean(values)) for name, values in maes.items()},
        "test_mae_by_seed": maes,
        "test_r2": {
            name: float(np.mean([result["test_r2"] for result in results[name]]))
            for name in ("scratch", "finetuned")
        },
        "seconds": {
            name: float(sum(result["seconds"] for result in runs)) for name, runs in results.items()
        },
    }


def count_labels(comparison: Mapping[str, Any]) -> str:
    """Returns how many labels all models have, in words."""
    train, validation = (comparison["crystals"][part] for part in ("train", "validation"))
    return (
        f"{train + validation} labels, {validation} of which choose the checkpoint of a network "
        "that is trained"
    )


def _write_report(workdir: Path, comparison: Result, seed: int, start: str, strategy: str) -> None:
    """Writes and prints the comparison, and draws the first seed's curves and predictions."""
    unit, maes = comparison["unit"], comparison["test_mae_by_seed"]
    changes = {name: np.mean(mae) / np.mean(maes["scratch"]) - 1 for name, mae in maes.items()}
    rows = [
        {
            "model": label,
            with_unit("test MAE", unit): maes[name],
            "relative to scratch": f"{format_change(changes[name])}%",
        }
        for name, label in _WORDS.items()
    ]
    text = (
        f"{comparison['property']}: {count_labels(comparison)}; "
        f"{comparison['crystals']['test']} crystals to test on; seeds {comparison['seeds']}.\n"
        f"The pre-trained model is {start}; strategy {strategy}.\n\n"
        f"{format_table(rows)}\n"
    )
    (workdir / "comparison.md").write_text(text, encoding="utf-8")
    _logger.info("%s\n\n%s", workdir / "comparison.md", text)

    runs = {name: _directory(workdir, seed, name) for name in ("scratch", "finetuned")}
    learning_curves(
        workdir / "learning_curves.png",
        {name: curve for name, run in runs.items() if len((curve := validation_curve(run))[0])},
        "epoch",
        unit,
        baseline=("median of the training labels", comparison["constant_validation_mae"]),
    )
    tested = {
        name: [row for row in read_predictions(run / "predictions.csv") if row.split == "test"]
        for name, run in runs.items()
    }
    parity_plot(
        workdir / "parity.png",
        {
            name: (np.array([r.target for r in rows]), np.array([r.prediction for r in rows]))
            for name, rows in tested.items()
        },
        comparison["property"],
        unit,
        log=comparison["log"],
    )
