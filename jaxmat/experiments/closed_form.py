"""A head that is fitted in closed form instead of trained: a Gaussian process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jaxmat.batch import CrystalBatch
from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.intervals import INTERVALS
from jaxmat.bundles.model import Predictor
from jaxmat.crystals.descriptors import COLUMNS, descriptor_blocks
from jaxmat.experiments.baseline import fit_baseline, in_parts, interval
from jaxmat.experiments.outcome import Answers, beside, elements_with, write_files
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.models.gaussian_process import expected_error, posterior_mean
from jaxmat.models.network import CrystalNetwork
from jaxmat.training.gaussian_process import Fitted, check_number, fit

_logger = logging.getLogger(__name__)

METHOD = "leave-one-out"  # how intervals are calibrated, and labels it was fitted to predicted
# Parts whose labels it is fitted to: there is no checkpoint to choose.
FITTED = ("train", "validation")


def head_options(data: Prepared, width: int, descriptors: bool) -> dict[str, Any]:
    """Returns the options of a head for the labels of a run.

    Args:
        data: the data sets of one property.
        width: of the trunk's vectors.
        descriptors: whether the head sees the descriptors beside them.

    Raises:
        UserError: they are too few or too many; no vector is computed before it is known.
    """
    labels = sum(len(data.ids[part]) for part in FITTED)
    check_number(labels)
    return {
        "kind": "gaussian_process",
        "labels": labels,
        "columns": width + (COLUMNS if descriptors else 0),
        "descriptors": descriptors,
    }


def fit_and_test(workdir: Path, data: Prepared, start: Bundle) -> dict[str, Any]:
    """Fits the head to training and validation labels and tests it; writes what a run leaves.

    Args:
        workdir: of the run.
        data: the data sets of one property.
        start: a network whose only head is a Gaussian process, with the variables of its trunk.

    Returns:
        The result, as written to result.json. Predictions of the labels that it was fitted to are
        leave-one-out.
    """
    began = time.monotonic()
    model, variables, about, seen = start
    network = model.network()
    ((name, options),) = model.heads.items()
    predictor = Predictor(network, _input_step(network), options["columns"])
    vectors = {part: predictor(variables, data.datasets[part]) for part in PARTS}
    blocks = input_blocks(model.trunk["kind"], options)
    target = np.concatenate([data.datasets[part].target[:, 0] for part in FITTED])
    fitted = fit(np.concatenate([vectors[part] for part in FITTED]), target, blocks)
    variables = {**variables, "params": {**variables["params"], f"heads_{name}": fitted.process}}
    calibration = interval(np.abs(fitted.mean - fitted.target), fitted.spread, METHOD)
    answers = _answers(data, fitted, vectors["test"])
    others = {"train_and_validation_predictions": METHOD, "seconds": time.monotonic() - began}
    if model.trunk["kind"] != "descriptors":
        baseline = fit_baseline(data, 0)
        others |= beside(data, answers["test"].prediction, [baseline])
        if baseline:  # its own intervals need no other process, but suggestions do
            process = baseline.spreader.process
            variables = {**variables, INTERVALS: {name: process}}
            calibration["process_labels"] = len(process["weights"])
    about = about | {
        "elements": elements_with(about["elements"], data.datasets["validation"]),
        "data": data.origin,
        "calibration": {name: calibration},
    }
    trained = Bundle(model, variables, about, seen)
    return write_files(workdir, data, answers, trained, others)


def _input_step(network: CrystalNetwork) -> Callable[[dict[str, Any], CrystalBatch], jax.Array]:
    """Returns the function to what the only head of a network sees of crystals."""
    (name,) = network.head_options

    def step(variables: dict[str, Any], batch: CrystalBatch) -> jax.Array:
        pooled = network.apply(variables, batch, method="embed")
        return cast(jax.Array, network.apply(variables, name, pooled, batch, method="head_inputs"))

    return step


def input_blocks(trunk: str, options: Mapping[str, Any]) -> Sequence[int]:
    """Returns how many columns of a head's inputs share a length: vectors, then descriptors."""
    if trunk == "descriptors":
        return descriptor_blocks()
    if not options["descriptors"]:
        return (options["columns"],)
    return (options["columns"] - COLUMNS, *descriptor_blocks())


def _answers(data: Prepared, fitted: Fitted, inputs: np.ndarray) -> dict[str, Answers]:
    """Returns what a process says of labels that it was fitted to and, by its inputs, of others."""
    process = fitted.process
    mean, spread = (
        in_parts(each, process, inputs.__getitem__, len(inputs))
        for each in (posterior_mean, expected_error)
    )
    forecast = np.stack([mean, spread], axis=1)
    ends = np.cumsum([len(data.ids[part]) for part in FITTED])[:-1]
    left_out = np.split(np.stack([fitted.mean, fitted.spread], axis=1), ends)
    both = dict(zip(FITTED, left_out, strict=True)) | {"test": forecast}
    return {part: Answers(rows[:, :1], rows[:, 1:]) for part, rows in both.items()}
