"""What a finished training leaves: errors, predictions, plots and the model."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from jaxmat import bundle
from jaxmat.data.splits import write_split
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.experiments.workdir import RESULT, read_metrics, write_json
from jaxmat.model import Predictor
from jaxmat.report.plots import learning_curves, parity_plot
from jaxmat.report.predictions import prediction_rows, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import conformal_half_width, unit_and_scaled_metrics

_logger = logging.getLogger(__name__)

MONITOR = "validation_mae"  # the metric that chooses the checkpoint
_LEVEL = 0.9  # of the interval that a model gives with its predictions


def scores(prediction: np.ndarray, data: Prepared, part: str) -> dict[str, float]:
    """Returns the metrics of a part, in the property's unit and, marked so, in scaled form."""
    both = unit_and_scaled_metrics(
        data.datasets[part].target[:, 0], prediction[:, 0], data.transform
    )
    return {f"{part}_{name}": value for name, value in both["unit"].items()} | {
        f"{part}_{name}_scaled": value for name, value in both["scaled"].items()
    }


def write_outcome(
    workdir: Path,
    data: Prepared,
    predictor: Predictor,
    trained: bundle.Bundle,
    seconds: float,
    chosen: dict[str, float],
    runs: Sequence[Path],
) -> dict[str, Any]:
    """Predicts all parts with a trained model; writes predictions, plots, bundle and result.

    Args:
        workdir: of the run.
        data: the data sets.
        predictor: of the model's network.
        trained: the model; what it says about itself is completed by elements, metrics and the
            calibration of its interval.
        seconds: that training took.
        chosen: numbers that were chosen on the validation part, for the result.
        runs: directories of the trainings that made the model, most often the workdir alone.

    Returns:
        The result, as written to result.json.
    """
    transform = data.transform
    scaled = {part: predictor(trained.variables, data.datasets[part]) for part in PARTS}
    predictions = {part: transform.to_unit(scaled[part][:, 0]) for part in PARTS}
    rows = (
        prediction_rows(data.ids[part], part, data.labels[part], predictions[part], transform.unit)
        for part in PARTS
    )
    write_predictions(workdir / "predictions.csv", itertools.chain.from_iterable(rows))
    write_split(workdir / "split.json", data.ids)
    median = np.median(data.labels["train"])
    constant_maes = {
        f"constant_{part}_mae": float(np.mean(np.abs(data.labels[part] - median)))
        for part in ("validation", "test")
    }
    _plot(workdir, data, predictions, constant_maes["constant_validation_mae"], runs)
    result: dict[str, Any] = {
        "property": transform.name,
        "unit": transform.unit,
        "log": transform.log,
        "crystals": {part: len(data.ids[part]) for part in PARTS},
        **constant_maes,
        **{
            name: value
            for part in PARTS
            for name, value in scores(scaled[part], data, part).items()
        },
        **chosen,
        "seconds": seconds,
    }
    about = trained.about | {
        "elements": _elements(trained.about["elements"], data),
        "metrics": {
            name: value if math.isfinite(value) else None  # JSON has no NaN
            for name, value in result.items()
            if "_mae" in name or "_rmse" in name or "_r2" in name
        },
        "calibration": _calibration(data, scaled["validation"][:, 0]),
    }
    bundle.save_bundle(workdir / bundle.FOLDER, trained._replace(about=about))
    write_json(workdir / RESULT, result)
    _logger.info(
        "test MAE of %s: %s (median of the training labels: %s)",
        transform.name,
        format_quantity(result["test_mae"], transform.unit),
        format_quantity(result["constant_test_mae"], transform.unit),
    )
    return result


def _elements(seen: list[str] | None, data: Prepared) -> list[str] | None:
    """Returns the elements seen before and in this training; None where those are not known."""
    if seen is None:
        return None
    numbers = {z for graph in data.datasets["train"].graphs for z in graph.atomic_number.tolist()}
    return sorted({*seen, *(Element.from_Z(z).symbol for z in numbers)})


def _calibration(data: Prepared, prediction: np.ndarray) -> dict[str, Any]:
    """Returns the interval of a bundle from scaled predictions of the validation part."""
    target = data.datasets["validation"].target[:, 0]
    half_width = conformal_half_width(target, prediction, _LEVEL)
    if half_width is None:
        return {}
    return {data.transform.name: {"level": _LEVEL, "half_width": half_width}}


def _plot(
    workdir: Path,
    data: Prepared,
    predictions: dict[str, np.ndarray],
    constant_mae: float,
    runs: Sequence[Path],
) -> None:
    """Draws test predictions against labels, and the learning curves."""
    transform = data.transform
    parity_plot(
        workdir / "parity.png",
        {"test": (data.labels["test"], predictions["test"])},
        transform.name,
        transform.unit,
        log=transform.log,
    )
    learning_curves(
        workdir / "learning_curve.png",
        {
            "validation" if run == workdir else f"validation, {run.name}": validation_curve(run)
            for run in runs
        },
        "step",
        transform.unit,
        baseline=("median of the training labels", constant_mae),
    )


def validation_curve(workdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and validation MAE in the property's unit of a run, [evaluations] each."""
    records = read_metrics(workdir)
    return (
        np.array([record["step"] for record in records]),
        np.array([record[MONITOR] for record in records], dtype=float),
    )
