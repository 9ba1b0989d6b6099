"""What makes the final model of a choice of its trainings: intervals, and weighted means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmat.bundles.bundle import FOLDER, read_bundle, save_bundle
from jaxmat.bundles.intervals import LEVEL
from jaxmat.bundles.means import Mean, write_mean
from jaxmat.bundles.predict import combine_rows
from jaxmat.data.targets import TargetTransform
from jaxmat.experiments.workdir import RESULT, write_json
from jaxmat.report.predictions import Prediction, read_predictions, write_predictions
from jaxmat.training.metrics import conformal_factor, regression_metrics

METHOD = "cross-validation"


def recalibrate(run: Path, ratios: np.ndarray) -> None:
    """Gives the intervals of a finished run the widths that out-of-fold errors ask for.

    These are as many as there are labels, and cost none (cross-conformal: Vovk, Ann. Math. Artif.
    Intell. 74, 9, 2015; Barber et al., Ann. Stat. 49, 486, 2021). Done once; again it changes
    nothing.

    Args:
        run: directory of the run.
        ratios: out-of-fold errors over half widths, NaN where there is none, [crystals].
    """
    bundle = read_bundle(run / FOLDER)
    (name,) = bundle.model.heads
    calibration = bundle.about["calibration"].get(name, {})
    known = ratios[np.isfinite(ratios)]
    if "factor" not in calibration or calibration["method"] == METHOD or not len(known):
        return
    wider = conformal_factor(known, LEVEL)
    rows = read_predictions(run / "predictions.csv")
    transform = bundle.model.transforms[name]
    write_predictions(run / "predictions.csv", [_widened(row, transform, wider) for row in rows])
    widths = {key: wider * calibration[key] for key in ("factor", "half_width")}
    changed = {**calibration, **widths, "method": METHOD}
    about = bundle.about | {"calibration": {name: changed}}
    save_bundle(run / FOLDER, bundle._replace(about=about))


def _widened(row: Prediction, transform: TargetTransform, wider: float) -> Prediction:
    middle, low, high = transform.to_scaled(np.array([row.prediction, row.low, row.high]))
    ends = middle + wider * np.array([low - middle, high - middle])
    low, high = transform.to_unit(ends)
    return row._replace(low=float(low), high=float(high))


def finish_blend(
    place: Path, runs: Sequence[Path], weights: Sequence[float], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Makes one model of several finished runs; writes what names them, and their predictions.

    Args:
        place: folder of the model, which holds the runs.
        runs: their directories.
        weights: of their predictions, summing to 1.
        results: of the runs.

    Returns:
        The result of the model, like that of a run.
    """
    names = [run.name for run in runs]
    members = [read_predictions(run / "predictions.csv") for run in runs]
    by_place = [{(row.split, row.id): row for row in rows} for rows in members]
    rows = [
        combine_rows([each[(row.split, row.id)] for each in by_place], weights)
        for row in members[0]
    ]
    write_predictions(place / "predictions.csv", rows)
    tested = [(row.target, row.prediction) for row in rows if row.split == "test"]
    kept = {
        key: value
        for key, value in results[0].items()
        if key in ("property", "unit", "log", "crystals", "interval_level")
        or key.startswith(("constant_", "gaussian_process_"))
    }
    metrics = regression_metrics(*np.array(tested).T)
    tests = {f"test_{name}": value for name, value in metrics.items()}
    write_mean(place, Mean(names, list(weights), tests))
    result = kept | tests
    write_json(place / RESULT, result)
    return result
