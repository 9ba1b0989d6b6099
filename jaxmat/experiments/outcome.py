"""What a finished training leaves: errors, predictions, plots and the model."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Element

from jaxmat.bundles import bundle
from jaxmat.bundles.intervals import INTERVALS, LEFT_OUT, LEVEL
from jaxmat.bundles.model import Predictor
from jaxmat.data.batches import Dataset
from jaxmat.data.findings import some
from jaxmat.data.seen import Seen, both, mark
from jaxmat.data.splits import write_split
from jaxmat.data.store import elements_of
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments.baseline import Baseline, calibrate, compare, fit_baseline, spread_of
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.experiments.seen_before import measure_seen
from jaxmat.experiments.unseen import interval_widths, measure_unseen
from jaxmat.experiments.workdir import RESULT, add_findings, read_metrics, write_json
from jaxmat.report.plots import learning_curves, parity_plot
from jaxmat.report.predictions import prediction_rows, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import (
    regression_metrics,
    unit_and_scaled_metrics,
)

_logger = logging.getLogger(__name__)


def monitor(transforms: Mapping[str, TargetTransform]) -> str:
    """Returns the metric that chooses the checkpoint.

    Args:
        transforms: of the properties that are learned.

    Returns:
        Of one property its MAE on the validation part. Of several the mean over them of MAE over
        MAE of a constant, the median of the training labels: on the same part, or on the training
        part where all labels of the part are that constant.
    """
    return "validation_mae" if len(transforms) == 1 else "validation_relative_mae"


def scores(prediction: np.ndarray, data: Prepared, part: str) -> dict[str, float]:
    """Returns the metrics of a part, in the properties' units and, marked so, in scaled form.

    Args:
        prediction: scaled, [crystals, properties].
        data: the data sets.
        part: which of them.

    Returns:
        "<part>_mae" and so on; of several properties "<part>_mae_<property>" and so on, and
        "<part>_relative_mae", see `monitor`.
    """
    found: dict[str, float] = {}
    for i, (name, transform) in enumerate(data.transforms.items()):
        target, suffix = data.datasets[part].target[:, i], property_suffix(data.transforms, name)
        both = unit_and_scaled_metrics(target, prediction[:, i], transform)
        found |= {f"{part}_{key}{suffix}": value for key, value in both["unit"].items()}
        found |= {f"{part}_{key}_scaled{suffix}": value for key, value in both["scaled"].items()}
    if len(data.transforms) > 1:
        constant, training = (constant_maes(data, each) for each in (part, "train"))
        maes = {name: constant[name] or training[name] for name in constant}
        ratios = [found[f"{part}_mae_{name}"] / mae for name, mae in maes.items() if mae > 0]
        found[f"{part}_relative_mae"] = float(np.mean(ratios)) if ratios else math.nan
    return found


def constant_maes(data: Prepared, part: str) -> dict[str, float]:
    """Returns the MAE of the median of the training labels, by property; NaN without labels."""
    return {
        name: regression_metrics(labels, np.full(len(labels), np.nanmedian(training)))["mae"]
        for name, labels, training in zip(
            data.transforms, data.labels[part].T, data.labels["train"].T, strict=True
        )
    }


class Answers(NamedTuple):
    """What a model says of a part of the data, scaled.

    Attributes:
        prediction: [crystals, properties].
        spread: see `jaxmat.bundles.intervals`, [crystals, properties].
    """

    prediction: np.ndarray
    spread: np.ndarray


def write_outcome(
    workdir: Path,
    data: Prepared,
    predictor: Predictor,
    trained: bundle.Bundle,
    more: Mapping[str, float],
    runs: Sequence[Path],
) -> dict[str, Any]:
    """Predicts all parts with a trained network; writes what a run leaves.

    Args:
        workdir: of the run.
        data: the data sets.
        predictor: of the model's network.
        trained: the model; what it says about itself is completed by elements, metrics and the
            calibration of its intervals.
        more: numbers for the result: those chosen on the validation part, and times.
        runs: directories of the trainings that made the model, most often the workdir alone.

    Returns:
        The result, as written to result.json.
    """
    scaled = {part: predictor(trained.variables, data.datasets[part]) for part in PARTS}
    _refuse_not_finite(data, scaled, workdir)
    baselines = [fit_baseline(data, i) for i in range(len(data.transforms))]
    calibration, processes = {}, {}
    for i, (name, baseline) in enumerate(zip(data.transforms, baselines, strict=True)):
        if baseline:
            prediction = scaled["validation"][:, i]
            calibration[name] = calibrate(baseline, data, prediction, i)
            processes[name] = baseline.spreader.process
    answers = {
        part: Answers(
            scaled[part],
            np.stack([spread_of(each, data, part) for each in baselines], axis=1),
        )
        for part in PARTS
    }
    _draw_curves(workdir, data, runs)
    complete = trained._replace(
        variables={**trained.variables, INTERVALS: processes},
        about=trained.about | {"calibration": calibration},
    )
    return write_files(
        *(workdir, data, answers, complete),
        {**beside(data, scaled["test"], baselines), **more},
    )


def write_files(
    workdir: Path,
    data: Prepared,
    answers: Mapping[str, Answers],
    trained: bundle.Bundle,
    others: dict[str, Any],
) -> dict[str, Any]:
    """Writes predictions, plots, bundle and result of a model.

    Args:
        workdir: of the run.
        data: the data sets.
        answers: of the model about each part.
        trained: the model, calibrated; elements and metrics are added.
        others: entries of the result beside those that follow from the answers.

    Returns:
        The result, as written to result.json.
    """
    scaled = {part: answer.prediction for part, answer in answers.items()}
    result = _result(data, scaled) | {"interval_level": LEVEL} | others
    write_split(workdir / "split.json", data.ids)
    elements = elements_with(trained.about["elements"], data.datasets["train"])
    known = trained.about | {"elements": elements}
    for i, name in enumerate(data.transforms):
        both = {
            part: (
                answer.prediction[:, i],
                interval_widths(known, name, answer.spread[:, i], data.datasets[part].graphs),
            )
            for part, answer in answers.items()
        }
        _write_property(workdir, data, both, name)
    if data.seen_before is not None:
        (transform,) = data.transforms.values()
        predictions = transform.to_unit(scaled["test"][:, 0])
        result["seen_before"] = measure_seen(
            data.seen_before, data.labels["test"][:, 0], predictions
        )
    remarks = []
    for i, (name, transform) in enumerate(data.transforms.items()):
        predictions = transform.to_unit(scaled["test"][:, i])
        unseen, remark = measure_unseen(
            *(data.datasets["test"].graphs, elements, transform),
            *(data.labels["test"][:, i], predictions),
        )
        if unseen:
            result[f"unseen_elements{property_suffix(data.transforms, name)}"] = unseen
        remarks.append(remark)
    add_findings(workdir, remarks)
    if measured := trained.about[LEFT_OUT]:
        result[LEFT_OUT] = measured
    about = known | {
        "metrics": {
            name: value if math.isfinite(value) else None  # JSON has no NaN
            for name, value in result.items()
            if "_mae" in name or "_rmse" in name or "_r2" in name
        },
    }
    complete = trained._replace(about=about, seen=_seen_with(trained.seen, data))
    bundle.save_bundle(workdir / bundle.FOLDER, complete)
    write_json(workdir / RESULT, result)
    for name, transform in data.transforms.items():
        suffix = property_suffix(data.transforms, name)
        _logger.info(
            "test MAE of %s: %s (median of the training labels: %s)%s",
            name,
            format_quantity(result[f"test_mae{suffix}"], transform.unit),
            format_quantity(result[f"constant_test_mae{suffix}"], transform.unit),
            f"\n{result[f'verdict{suffix}']}" if f"verdict{suffix}" in result else "",
        )
    return result


def beside(
    data: Prepared, prediction: np.ndarray, baselines: Sequence[Baseline | None]
) -> dict[str, Any]:
    """Returns the test errors of the baselines, and what is said of a network beside them.

    Args:
        data: the data sets.
        prediction: the network's of the test part, scaled, [crystals, properties].
        baselines: of the properties.
    """
    found: dict[str, Any] = {}
    for i, (name, transform) in enumerate(data.transforms.items()):
        baseline, suffix, labels = (
            baselines[i],
            property_suffix(data.transforms, name),
            data.labels["test"][:, i],
        )
        if baseline is None:
            continue
        fitted = transform.to_unit(baseline.prediction)
        found[f"gaussian_process_test_mae{suffix}"] = regression_metrics(labels, fitted)["mae"]
        found[f"gaussian_process_labels{suffix}"] = baseline.labels
        found[f"verdict{suffix}"] = compare(name, transform, labels, prediction[:, i], baseline)
    return found


def _result(data: Prepared, scaled: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what was learned, on how much, and how well it is predicted."""
    about = {
        name: {"property": name, "unit": transform.unit, "log": transform.log}
        for name, transform in data.transforms.items()
    }
    result: dict[str, Any] = {"crystals": {part: len(data.ids[part]) for part in PARTS}}
    if len(about) == 1:
        result |= next(iter(about.values()))
    else:
        result["properties"] = [
            one | {"labels": {part: _count(data.labels[part][:, i]) for part in PARTS}}
            for i, one in enumerate(about.values())
        ]
    if data.left_out:
        result["left_out"] = data.left_out
    for part in ("validation", "test"):
        for name, mae in constant_maes(data, part).items():
            result[f"constant_{part}_mae{property_suffix(data.transforms, name)}"] = mae
    for part in PARTS:
        result |= scores(scaled[part], data, part)
    return result


def _refuse_not_finite(data: Prepared, scaled: Mapping[str, np.ndarray], workdir: Path) -> None:
    """Refuses to call a run done whose network does not predict.

    Raises:
        UserError: predictions are not finite; it names crystals.
    """
    for part, values in scaled.items():
        columns = zip(data.transforms.values(), values.T, strict=True)
        good = np.all([np.isfinite(scaling.to_unit(column)) for scaling, column in columns], axis=0)
        if not good.all():
            ids = [id for id, fine in zip(data.ids[part], good, strict=True) if not fine]
            raise UserError(
                f"The trained network's predictions of {len(ids)} of {len(good)} {part} crystals "
                f"are not finite ({some(ids)}): this run is not done, and there is no model of it. "
                "Lower config.training.learning_rate or look for extreme labels, and start in a "
                f"new folder; checkpoints are in {workdir / 'checkpoints'}."
            )


def _count(labels: np.ndarray) -> int:
    return int(np.count_nonzero(~np.isnan(labels)))


def property_suffix(transforms: Mapping[str, TargetTransform], name: str) -> str:
    """Returns what is added to the names of a property's metrics and files.

    Args:
        transforms: of the properties of a run.
        name: of the property.
    """
    return f"_{name}" if len(transforms) > 1 else ""


def _write_property(
    workdir: Path,
    data: Prepared,
    scaled: Mapping[str, tuple[np.ndarray, np.ndarray]],
    name: str,
) -> None:
    """Writes predictions of one property and draws them against the test labels.

    Args:
        workdir: of the run.
        data: the data sets.
        scaled: prediction and half width of the interval of each part, [crystals] each.
        name: of the property.
    """
    transform, column = data.transforms[name], list(data.transforms).index(name)
    intervals = {
        part: (transform.to_unit(values - width), transform.to_unit(values + width))
        for part, (values, width) in scaled.items()
    }
    predictions = {part: transform.to_unit(values) for part, (values, _) in scaled.items()}
    labels = {part: data.labels[part][:, column] for part in PARTS}
    rows = (
        prediction_rows(
            *(data.ids[part], part, labels[part], predictions[part], transform.unit),
            interval=intervals[part],
        )
        for part in PARTS
    )
    suffix = property_suffix(data.transforms, name)
    write_predictions(workdir / f"predictions{suffix}.csv", itertools.chain.from_iterable(rows))
    there = ~np.isnan(labels["test"])
    if there.any():
        parity_plot(
            workdir / f"parity{suffix}.png",
            {"test": (labels["test"][there], predictions["test"][there])},
            name,
            transform.unit,
            log=transform.log,
        )


def elements_with(seen: list[str] | None, data: Dataset) -> list[str] | None:
    """Returns the elements seen before and in these crystals; None where those are not known."""
    if seen is None:
        return None
    numbers = np.flatnonzero(elements_of(data.graphs).any(axis=0)).tolist()
    return sorted({*seen, *(Element.from_Z(z).symbol for z in numbers)})


def _seen_with(seen: Seen | None, data: Prepared) -> Seen | None:
    """Returns the crystals seen before and in training and validation; None where not known."""
    if seen is None:
        return None
    for part in ("train", "validation"):
        labelled = ~np.isnan(data.labels[part])
        seen = both(seen, mark(data.datasets[part].graphs, labelled, list(data.transforms)))
    return seen


def _draw_curves(workdir: Path, data: Prepared, runs: Sequence[Path]) -> None:
    """Draws what chooses the checkpoint against the epochs."""
    metric = monitor(data.transforms)
    unit, constant = "1", 1.0
    if metric == "validation_mae":
        (constant,) = constant_maes(data, "validation").values()
        unit = next(iter(data.transforms.values())).unit
    learning_curves(
        workdir / "learning_curve.png",
        {
            "validation" if run == workdir else f"validation, {run.name}": validation_curve(
                run, metric
            )
            for run in runs
        },
        "epoch",
        unit,
        baseline=("median of the training labels", constant),
    )


def validation_curve(
    workdir: Path, metric: str = "validation_mae", until: float = math.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Returns epochs of a run up to one of its steps and a metric, [evaluations] each.

    Epochs are NaN in the records of runs that were begun when these had steps alone.
    """
    records = [record for record in read_metrics(workdir) if record["step"] <= until]
    return (
        np.array([record.get("epoch") for record in records], dtype=float),
        np.array([record[metric] for record in records], dtype=float),
    )
