"""One training: resume or start, fit, choose the checkpoint, test, write down."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict
from pymatgen.core import Element

from jaxmat import bundle
from jaxmat.data.batches import TrainingBatches
from jaxmat.data.splits import write_split
from jaxmat.errors import UserError
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.experiments.workdir import METRICS, RESULT, read_metrics, write_json, write_rejected
from jaxmat.model import Model, Predictor
from jaxmat.report.plots import learning_curves, parity_plot
from jaxmat.report.predictions import prediction_rows, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training import losses, optimizers, schedules
from jaxmat.training.checkpoints import Checkpoints, load_variables
from jaxmat.training.loop import fit, json_lines
from jaxmat.training.metrics import conformal_half_width, unit_and_scaled_metrics
from jaxmat.training.state import averaged_variables, create_state
from jaxmat.training.step import make_train_step

_logger = logging.getLogger(__name__)

_LOSSES = {"mse": losses.squared, "l1": losses.absolute, "huber": losses.huber}
_DECAY_MASKS = {
    "kernels": optimizers.kernel_decay_mask,
    "published": optimizers.published_decay_mask,
}
_MONITOR = "validation_mae"
_LEVEL = 0.9  # of the interval that a model gives with its predictions


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    seed: int,
    data: Prepared,
    model: Model,
    variables: dict[str, Any],
    about: dict[str, Any],
    trainable: Any = None,
    stop: Callable[[int], bool] = lambda step: False,
) -> dict[str, Any] | None:
    """Trains a network on one property and tests it.

    Goes on from the last checkpoint in the working directory where there is one. Leaves there
    metrics.jsonl, checkpoints, predictions.csv, plots, split.json, the bundle model and
    result.json.

    Args:
        config: `training` of a config.
        workdir: directory of the run.
        seed: of the order of the data.
        data: the data sets.
        model: the network and how it is fed.
        variables: where training starts.
        about: from `bundle.make_about`: where they come from, and the elements they have seen.
        trainable: tree of bools like the parameters, or None for all.
        stop: asked after every step whether to save and return.

    Returns:
        The result, or None where training was stopped.
    """
    network = model.network()
    batches = TrainingBatches(
        data.datasets["train"],
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=seed,
        drop_last=config.drop_last and len(data.datasets["train"].graphs) > config.batch_size,
        max_shapes=config.max_shapes,
    )
    optimizer = make_optimizer(config, batches.total_steps, trainable)
    step = make_train_step(
        network,
        optimizer,
        functools.partial(
            losses.masked_loss, elementwise=_chosen(_LOSSES, config, "loss"), average="labels"
        ),
        trainable=trainable,
        ema_decay=config.ema_decay or None,
    )
    checkpoints = Checkpoints(workdir, model.describe())
    state = create_state(variables, optimizer, ema=config.ema_decay > 0)
    state = checkpoints.restore_last(state) or state
    predictor = Predictor(network)

    def evaluate(variables: dict[str, Any]) -> dict[str, float]:
        return _scores(predictor(variables, data.datasets["validation"]), data, "validation")

    began = time.monotonic()
    state = fit(
        state,
        jax.jit(step, donate_argnums=0),
        batches.from_step,
        total_steps=batches.total_steps,
        evaluate=evaluate,
        evaluate_every=config.evaluate_every * batches.steps_per_epoch,
        monitor=_MONITOR,
        checkpoints=checkpoints,
        save_every=config.save_every * batches.steps_per_epoch,
        log=json_lines(workdir / METRICS),
        stop=stop,
    )
    if int(state.step) < batches.total_steps:
        return None
    chosen = averaged_variables(state)
    if config.test_with == "best":
        chosen, _ = load_variables(workdir)
    trained = bundle.Bundle(model, chosen, about | {"data": data.origin})
    return _test(workdir, data, predictor, trained, time.monotonic() - began)


def make_optimizer(
    config: ConfigDict, total_steps: int, trainable: Any
) -> optax.GradientTransformation:
    """Returns the optimizer that `training` of a config describes.

    Raises:
        UserError: an unknown schedule or decay.
    """
    beta1: optax.Schedule | float = 0.9
    if config.schedule == "onecycle":
        rate = schedules.onecycle(config.learning_rate, total_steps)
        beta1 = schedules.onecycle_beta1(total_steps)
    elif config.schedule == "warmup_cosine":
        rate = schedules.warmup_cosine(config.learning_rate, total_steps, total_steps // 20)
    else:
        raise UserError(
            f"config.training.schedule is {config.schedule!r}; use 'onecycle' or 'warmup_cosine'."
        )
    return optimizers.make_optimizer(
        rate,
        beta1,
        weight_decay=config.weight_decay,
        decay_mask=_chosen(_DECAY_MASKS, config, "decay"),
        trainable=trainable,
    )


def _chosen(options: dict[str, Any], config: ConfigDict, field: str) -> Any:
    if config[field] not in options:
        raise UserError(
            f"config.training.{field} is {config[field]!r}; use one of {', '.join(options)}."
        )
    return options[config[field]]


def _scores(prediction: np.ndarray, data: Prepared, part: str) -> dict[str, float]:
    """Returns the metrics of a part, in the property's unit and, marked so, in scaled form."""
    both = unit_and_scaled_metrics(
        data.datasets[part].target[:, 0], prediction[:, 0], data.transform
    )
    return {f"{part}_{name}": value for name, value in both["unit"].items()} | {
        f"{part}_{name}_scaled": value for name, value in both["scaled"].items()
    }


def _test(
    workdir: Path, data: Prepared, predictor: Predictor, trained: bundle.Bundle, seconds: float
) -> dict[str, Any]:
    """Predicts all parts with the trained model; writes predictions, plots, bundle and result."""
    transform = data.transform
    scaled = {part: predictor(trained.variables, data.datasets[part]) for part in PARTS}
    predictions = {part: transform.to_unit(scaled[part][:, 0]) for part in PARTS}
    rows = (
        prediction_rows(data.ids[part], part, data.labels[part], predictions[part], transform.unit)
        for part in PARTS
    )
    write_predictions(workdir / "predictions.csv", itertools.chain.from_iterable(rows))
    write_split(workdir / "split.json", data.ids)
    write_rejected(workdir / "rejected.csv", data.rejected)
    median = np.median(data.labels["train"])
    constant_maes = {
        f"constant_{part}_mae": float(np.mean(np.abs(data.labels[part] - median)))
        for part in ("validation", "test")
    }
    _plot(workdir, data, predictions, constant_maes["constant_validation_mae"])
    result: dict[str, Any] = {
        "property": transform.name,
        "unit": transform.unit,
        "log": transform.log,
        "crystals": {part: len(data.ids[part]) for part in PARTS},
        **constant_maes,
        **_scores(scaled["validation"], data, "validation"),
        **_scores(scaled["test"], data, "test"),
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
    workdir: Path, data: Prepared, predictions: dict[str, np.ndarray], constant_mae: float
) -> None:
    """Draws test predictions against labels, and the learning curve."""
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
        {"validation": validation_curve(workdir)},
        "step",
        transform.unit,
        baseline=("median of the training labels", constant_mae),
    )


def validation_curve(workdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and validation MAE in the property's unit of a run, [evaluations] each."""
    records = read_metrics(workdir)
    return (
        np.array([record["step"] for record in records]),
        np.array([record[_MONITOR] for record in records], dtype=float),
    )
