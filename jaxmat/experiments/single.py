"""Experiments on one property: training from scratch, fine-tuning, evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat import __version__
from jaxmat.bundle import load, make_about
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.batches import Dataset
from jaxmat.errors import UserError
from jaxmat.experiments.prepare import make_graphs, prepare, read_labelled
from jaxmat.experiments.training_run import train
from jaxmat.experiments.workdir import RESULT, write_json, write_rejected
from jaxmat.model import Model, Predictor, initial_variables
from jaxmat.report.predictions import prediction_rows, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import regression_metrics
from jaxmat.transfer.strategies import get_strategy, target_head, trainable_mask, transfer_rules
from jaxmat.transfer.trees import summarize, transfer

_logger = logging.getLogger(__name__)

Result = dict[str, Any]
Stop = Callable[[int], bool]


def never(step: int) -> bool:
    """Stops no training."""
    return False


def scratch(config: ConfigDict, workdir: Path, stop: Stop = never) -> Result | None:
    """Trains a network from random weights (and so pre-trains one, too).

    Returns:
        The result, or None where training was stopped.
    """
    data = prepare(config.data, config.seed, GraphSettings(**config.graph))
    model = Model(
        trunk=config.network.trunk.to_dict(),
        heads={data.transform.name: config.network.head.to_dict()},
        graph=GraphSettings(**config.graph),
        transforms={data.transform.name: data.transform},
    )
    variables = initial_variables(model.network(), data.datasets["train"], config.seed)
    return train(
        config.training,
        workdir,
        seed=config.seed,
        data=data,
        model=model,
        variables=variables,
        about=make_about(f"trained from random weights, jaxmat {__version__}", elements=[]),
        stop=stop,
    )


def finetune(config: ConfigDict, workdir: Path, stop: Stop = never) -> Result | None:
    """Fine-tunes a checkpoint on one property, on graphs like those it was trained on.

    Returns:
        The result, or None where training was stopped.
    """
    strategy = get_strategy(config.strategy)
    source, source_variables, before = load(_init_from(config))
    data = prepare(config.data, config.seed, source.graph)
    name = data.transform.name
    head, continued = target_head(strategy, source.heads)
    model = Model(source.trunk, {name: head}, source.graph, {name: data.transform})
    initial = initial_variables(model.network(), data.datasets["train"], config.seed)
    rules, dropped = transfer_rules(name, continued)
    variables, report = transfer(source_variables, initial, rules, dropped)
    _logger.info("Weights of %s:\n%s", config.init_from, summarize(report))
    write_json(workdir / "transfer.json", [fate._asdict() for fate in report])
    return train(
        config.training,
        workdir,
        seed=config.seed,
        data=data,
        model=model,
        variables=variables,
        about=make_about(
            f"fine-tuned from {config.init_from} ({config.strategy}), jaxmat {__version__}",
            elements=before["elements"],
        ),
        trainable=trainable_mask(variables["params"], strategy),
        stop=stop,
    )


def evaluate(config: ConfigDict, workdir: Path, stop: Stop = never) -> Result:
    """Tests a checkpoint on all labels of a table.

    Raises:
        UserError: the table's unit is not the checkpoint's, or which head to test is not clear.
    """
    model, variables, _ = load(_init_from(config))
    labelled = read_labelled(config.data)
    name = labelled.property if labelled.property in model.transforms else _only_head(model)
    transform = model.transforms[name]
    if transform.unit != config.data.unit:
        raise UserError(
            f"The checkpoint predicts {name} in {transform.unit}, but config.data.unit is "
            f"{config.data.unit}; convert the labels."
        )
    graphs = make_graphs(list(labelled.table.structures), model.graph)
    data = Dataset(graphs, np.full((len(graphs), 1), np.nan))
    column = list(model.heads).index(name)
    prediction = transform.to_unit(Predictor(model.network())(variables, data)[:, column])
    result: Result = {
        "property": name,
        "unit": transform.unit,
        "crystals": {"test": len(graphs)},
        **{
            f"test_{key}": value
            for key, value in regression_metrics(labelled.labels, prediction).items()
        },
    }
    ids = labelled.table.ids
    write_predictions(
        workdir / "predictions.csv",
        prediction_rows(ids, "test", labelled.labels, prediction, transform.unit),
    )
    write_rejected(workdir / "rejected.csv", labelled.rejected)
    write_json(workdir / RESULT, result)
    mae = format_quantity(result["test_mae"], transform.unit)
    _logger.info("MAE of %s on %d crystals: %s", name, len(graphs), mae)
    return result


def _only_head(model: Model) -> str:
    if len(model.heads) > 1:
        raise UserError(
            "The checkpoint predicts several properties; set config.data.property to one of "
            f"{', '.join(model.heads)}."
        )
    return next(iter(model.heads))


def _init_from(config: ConfigDict) -> str:
    if not config.init_from:
        raise UserError(
            "config.init_from is not set; give a bundle, the directory of a run or a checkpoint: "
            "--config.init_from=DIR."
        )
    return config.init_from
