"""A model, or a mean of several, tested on all labels of a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.intervals import make_forecast_step
from jaxmat.bundles.model import Predictor
from jaxmat.bundles.predict import combine_members, common_elements, load_members
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.batches import Dataset
from jaxmat.data.findings import some
from jaxmat.data.targets import unit_mismatch
from jaxmat.errors import UserError, counted
from jaxmat.experiments.prepare import make_graphs, read_labelled
from jaxmat.experiments.seen_before import describe_seen, find_seen_by_any, measure_seen
from jaxmat.experiments.single import only_property, start_place
from jaxmat.experiments.unseen import describe_maes, interval_widths, measure_unseen
from jaxmat.experiments.workdir import RESULT, add_findings, write_json
from jaxmat.report.predictions import prediction_rows, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import regression_metrics

_logger = logging.getLogger(__name__)

Result = dict[str, Any]


def evaluate(config: ConfigDict, workdir: Path) -> Result:
    """Tests a model on all labels of a table.

    Raises:
        UserError: several properties, a unit that is not the model's, or it is not clear which
            head to test.
    """
    asked = only_property(config)
    members = load_members([start_place(config)])
    labelled = read_labelled(config.data, workdir)
    labels, ids = labelled.labels[:, 0], labelled.table.ids
    name = _head(members[0], asked)
    transform = members[0].model.transforms[name]
    if unit_mismatch(transform, config.data.unit):
        raise UserError(
            f"The checkpoint predicts {name} in {transform.unit}, but config.data.unit is "
            f"{config.data.unit}; convert the labels, or write the same unit in the same way."
        )
    graphs = make_graphs(config.data, labelled.table, members[0].model.graph)
    prediction, low, high = _predict(members, name, graphs)
    if not (good := np.isfinite(prediction)).all():
        wrong = [id for id, fine in zip(ids, good, strict=True) if not fine]
        raise UserError(
            f"The predictions of {len(wrong)} of {len(good)} crystals are not finite "
            f"({some(wrong)}): {config.start_from} cannot be used on them."
        )
    result: Result = {
        "property": name,
        "unit": transform.unit,
        "log": transform.log,
        "crystals": {"test": len(graphs)},
        **{f"test_{key}": value for key, value in regression_metrics(labels, prediction).items()},
        # Of the best constant there is, since the labels trained on are not known.
        "constant_test_mae": float(np.mean(np.abs(labels - np.median(labels)))),
        "interval_level": members[0].about["calibration"].get(name, {}).get("level"),
    }
    unseen, remark = measure_unseen(graphs, common_elements(members), transform, labels, prediction)
    if unseen:
        result["unseen_elements"] = unseen
    before = find_seen_by_any([member.seen for member in members], graphs)
    if measured := measure_seen(before, labels, prediction):
        result["seen_before"] = measured
    seen = describe_seen(before, config.start_from)
    if "test_mae" in measured:
        seen += f". There {describe_maes(measured, transform)}"
    add_findings(workdir, [seen, remark])
    if labelled.too_large:
        result["left_out"] = labelled.too_large
    rows = prediction_rows(ids, "test", labels, prediction, transform.unit, interval=(low, high))
    write_predictions(workdir / "predictions.csv", rows)
    write_json(workdir / RESULT, result)
    mae = format_quantity(result["test_mae"], transform.unit)
    _logger.info("MAE of %s on %s: %s", name, counted(len(graphs), "crystal"), mae)
    return result


def _head(member: Bundle, asked: str) -> str:
    """Returns the head to test: that of the property asked for, or the only one."""
    heads = list(member.model.heads)
    if asked not in heads and len(heads) > 1:
        raise UserError(
            "The checkpoint predicts several properties; set config.data.property to one of "
            f"{', '.join(heads)}."
        )
    return asked if asked in heads else heads[0]


def _predict(
    members: Sequence[Bundle], name: str, graphs: Sequence[CrystalGraph]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns predictions of a property and the ends of their intervals, in the unit."""
    scaled, widths = [], []
    for member in members:
        heads = list(member.model.heads)
        network, column = member.model.network(), heads.index(name)
        data = Dataset(list(graphs), np.full((len(graphs), 1), np.nan))
        predict = Predictor(network, make_forecast_step(network), 2 * len(heads))
        answers = predict(member.variables, data)
        scaled.append(answers[:, column])
        spread = answers[:, len(heads) + column]
        widths.append(interval_widths(member.about, name, spread, graphs))
    return combine_members(members, name, scaled, widths)
