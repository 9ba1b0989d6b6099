"""What makes the final model of a choice of its trainings: intervals, and weighted means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmat.bundles.bundle import FOLDER, read_bundle, save_bundle
from jaxmat.bundles.intervals import LEVEL
from jaxmat.bundles.means import Mean, write_mean
from jaxmat.bundles.predict import combine_rows, common_elements, mean_with_ends
from jaxmat.data.targets import TargetTransform
from jaxmat.experiments.prepare import Prepared, SeenBefore
from jaxmat.experiments.seen_before import measure_seen
from jaxmat.experiments.unseen import measure_unseen
from jaxmat.experiments.workdir import RESULT, add_findings, write_json
from jaxmat.report.predictions import Prediction, read_predictions, write_predictions
from jaxmat.training.metrics import conformal_factor, regression_metrics

METHOD = "cross-validation"
# Predictions as they were, while wider intervals are on their way to all files.
_NARROW = "predictions-narrow.csv"


def recalibrate(run: Path, ratios: np.ndarray) -> None:
    """Gives the intervals of a finished run the widths that out-of-fold errors ask for.

    These are as many as there are labels, and cost none (cross-conformal: Vovk, Ann. Math. Artif.
    Intell. 74, 9, 2015; Barber et al., Ann. Stat. 49, 486, 2021). Done once, a kill amid it
    included; again it changes nothing.

    Args:
        run: directory of the run.
        ratios: out-of-fold errors over half widths, NaN where there is none, [crystals].
    """
    bundle = read_bundle(run / FOLDER)
    (name,) = bundle.model.heads
    calibration = bundle.about["calibration"].get(name, {})
    known, narrow = ratios[np.isfinite(ratios)], run / _NARROW
    if "factor" not in calibration or calibration["method"] == METHOD or not len(known):
        narrow.unlink(missing_ok=True)
        return
    wider = conformal_factor(known, LEVEL)
    if not narrow.exists():
        (run / "predictions.csv").rename(narrow)
    rows = read_predictions(narrow)
    transform = bundle.model.transforms[name]
    write_predictions(run / "predictions.csv", [_widened(row, transform, wider) for row in rows])
    widths = {key: wider * calibration[key] for key in ("factor", "half_width")}
    changed = {**calibration, **widths, "method": METHOD}
    about = bundle.about | {"calibration": {name: changed}}
    save_bundle(run / FOLDER, bundle._replace(about=about))
    narrow.unlink()


def _widened(row: Prediction, transform: TargetTransform, wider: float) -> Prediction:
    _, low, high = widen(np.array([row.prediction, row.low, row.high]), transform, wider)
    return row._replace(low=float(low), high=float(high))


def widen(ends: np.ndarray, transform: TargetTransform, wider: float) -> np.ndarray:
    """Returns predictions and the ends of wider intervals about them.

    Args:
        ends: predictions, lower and upper ends, in the unit, [3, ...].
        transform: of the property; intervals are symmetric in scaled values.
        wider: what half the widths are multiplied by.
    """
    middle, low, high = transform.to_scaled(ends)
    scaled = [middle, middle + wider * (low - middle), middle + wider * (high - middle)]
    return transform.to_unit(np.stack(scaled))


def widening_of_mean(ends: np.ndarray, labels: np.ndarray, shares: np.ndarray, log: bool) -> float:
    """Returns what makes a mean's intervals hold as many labels as they should.

    As `recalibrate` does it for one model: on what the models, and so their mean, said of crystals
    out of fold. A mean errs less than its models do.

    Args:
        ends: out of fold, in the unit: predictions, lower and upper ends of calibrated intervals,
            [3, models, crystals]; NaN where there are none.
        labels: in the unit, [crystals].
        shares: of the models, summing to 1, [models].
        log: whether the models predict the property's logarithm.
    """
    there = np.isfinite(ends).all(axis=(0, 1))
    mean, low, high = mean_with_ends(ends[:, :, there], shares, log)
    into = np.log if log else np.asarray
    error, half = into(labels[there]) - into(mean), (into(high) - into(low)) / 2
    wide = half > 0  # equal labels leave no width
    return conformal_factor(np.abs(error[wide] / half[wide]), LEVEL) if wide.any() else 1.0


def finish_blend(
    place: Path,
    runs: Sequence[Path],
    weights: np.ndarray,
    results: Sequence[dict[str, Any]],
    wider: float,
    data: Prepared,
    before: SeenBefore | None,
) -> dict[str, Any]:
    """Makes one model of several finished runs; writes what names them, and their predictions.

    Args:
        place: folder of the model, which holds the runs.
        runs: their directories.
        weights: of their predictions, summing to 1, [runs].
        results: of the runs.
        wider: what half the widths of the intervals are multiplied by.
        data: the data sets of the runs.
        before: test crystals that a model to start from has seen; None: there is none, or it is
            not known.

    Returns:
        The result of the model, like that of a run.
    """
    names, log = [run.name for run in runs], results[0]["log"]
    members = [read_predictions(run / "predictions.csv") for run in runs]
    by_place = [{(row.split, row.id): row for row in rows} for rows in members]
    rows = [
        combine_rows([each[row.split, row.id] for each in by_place], weights, log, wider)
        for row in members[0]
    ]
    write_predictions(place / "predictions.csv", rows)
    tested = [(row.target, row.prediction) for row in rows if row.split == "test"]
    kept = {
        key: value
        for result in reversed(results)  # a process alone is beside no other
        for key, value in result.items()
        if key in ("property", "unit", "log", "crystals", "interval_level")
        or key.startswith(("constant_", "gaussian_process_"))
    }
    metrics = regression_metrics(*np.array(tested).T)
    tests = {f"test_{name}": value for name, value in metrics.items()}
    write_mean(place, Mean(names, weights.tolist(), tests, wider))
    result = kept | tests | _measure(place, runs, rows, data, before)
    write_json(place / RESULT, result)
    return result


def _measure(
    place: Path,
    runs: Sequence[Path],
    rows: Sequence[Prediction],
    data: Prepared,
    before: SeenBefore | None,
) -> dict[str, Any]:
    """Returns how good a mean is with and without crystals seen before, and of new elements."""
    (transform,) = data.transforms.values()
    tested = {row.id: row.prediction for row in rows if row.split == "test"}
    prediction = np.array([tested[id] for id in data.ids["test"]])
    labels, graphs = data.labels["test"][:, 0], data.datasets["test"].graphs
    elements = common_elements([read_bundle(run / FOLDER) for run in runs])
    unseen, remark = measure_unseen(graphs, elements, transform, labels, prediction)
    add_findings(place, [remark])
    found = {"seen_before": measure_seen(before, labels, prediction), "unseen_elements": unseen}
    return {name: measured for name, measured in found.items() if measured}
