"""The official folds of a Matbench task, and the files that its site wants.

Dunn et al., npj Comput. Mater. 6, 138 (2020); https://matbench.materialsproject.org. The folds are
KFold(5, shuffle=True, random_state=18012019) on the rows in their order. Tasks of classification
(folds by class) and of compositions alone are left out.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import jaxmat
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.tables import numeric_column, read_rows
from jaxmat.errors import UserError, counted, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.total import Total, Work
from jaxmat.experiments.workdir import RESULT, write_json
from jaxmat.report.predictions import Prediction, read_predictions, write_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.runtime.files import whole_file

_logger = logging.getLogger(__name__)

Result = dict[str, Any]
# Runs a config in a directory unless it is finished there; None where it was stopped.
Run = Callable[[ConfigDict, Path], Result | None]

FOLDS, SEED = 5, 18012019
# What the folds decide: none of their crystals may be left out.
_OF_THE_FOLDS: Mapping[str, Any] = {
    **{"id_column": "", "folds": FOLDS, "test_seed": SEED},
    **{"max_sites": 0, "max_rejected_fraction": 0.0},
}
# Of the package whose files these are.
_VERSION = "0.6"
_LEAST_TARGET = 1e-5  # of those that a relative error is taken of


class Task(NamedTuple):
    """A task of Matbench.

    Attributes:
        target: column of the labels.
        unit: of the labels.
    """

    target: str
    unit: str


TASKS: Mapping[str, Task] = {
    "matbench_dielectric": Task("n", "1"),
    "matbench_jdft2d": Task("exfoliation_en", "meV/atom"),
    "matbench_log_gvrh": Task("log10(G_VRH)", "log10(GPa)"),
    "matbench_log_kvrh": Task("log10(K_VRH)", "log10(GPa)"),
    "matbench_mp_e_form": Task("e_form", "eV/atom"),
    "matbench_mp_gap": Task("gap pbe", "eV"),
    "matbench_perovskites": Task("e_form", "eV/unit cell"),
    "matbench_phonons": Task("last phdos peak", "1/cm"),
}


def matbench(config: ConfigDict, workdir: Path, run: Run) -> Result | None:
    """Trains and tests on each fold, and writes results.json.gz and info.json.

    Args:
        config: of a training from random weights or from a model, with the name of the task; see
            `jaxmat.experiments.defaults.matbench`.
        workdir: gets fold_0 to fold_4 and the files. With a population, the mean of the predictions
            of its networks is what counts.
        run: how a fold is run.

    Returns:
        The result, or None where a run was stopped.

    Raises:
        UserError: a table that lacks rows or labels of the task, or a run that cannot be done.
    """
    _refuse_fixed(config)
    task = TASKS[config.task]
    target, unit = config.data.target or task.target, config.data.unit or task.unit
    labels = _read_labels(config, target)
    ids = official_ids(config.task, len(labels))
    folds, single = [], []
    places = [workdir / f"fold_{fold}" for fold in range(FOLDS)]
    total = Total({place.name: Work(1.0) for place in places if not (place / RESULT).exists()})
    for fold, place in enumerate(places):
        one = _fold_config(config, fold, target, unit)
        result = total.run(place.name, functools.partial(run, one, place))
        if result is None:
            return None
        single.append(result["test_mae"])
        folds.append({ids[int(row.id)]: row.prediction for row in _tested(place, result)})
    truth = dict(zip(ids, labels.tolist(), strict=True))
    scores = [
        score(np.array([truth[id] for id in fold]), np.array(list(fold.values()))) for fold in folds
    ]
    _write_files(config, workdir, folds, scores)
    maes = [one["mae"] for one in scores]
    summary: Result = {
        "property": target,
        "unit": unit,
        "crystals": {"test": len(ids)},
        "test_mae": float(np.mean(maes)),
        "test_mae_by_fold": maes,
        "test_mae_standard_deviation": float(np.std(maes)),
    }
    if config.start_from:
        summary |= {"start_from": config.start_from, "strategy": config.strategy}
    if config.population > 1:
        summary |= {"networks": config.population, "single_test_mae_by_fold": single}
    write_json(workdir / RESULT, summary)
    mae = format_quantity(summary["test_mae"], unit)
    _logger.info("%s: MAE %s, the mean of %d folds: %s", config.task, mae, FOLDS, workdir)
    return summary


def official_ids(task: str, rows: int) -> list[str]:
    """Returns the ids that Matbench gives the rows of a task, such as mb-phonons-0001."""
    name, width = task.removeprefix("matbench_").replace("_", "-"), len(str(rows))
    return [f"mb-{name}-{number:0{width}d}" for number in range(1, rows + 1)]


def score(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns the scores of a fold as Matbench defines them, in the property's unit."""
    error = np.abs(predicted - truth)
    far = np.abs(truth) > _LEAST_TARGET
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float((error[far] / np.abs(truth[far])).mean()) if far.any() else 0.0,
        "max_error": float(error.max()),
    }


def _tested(place: Path, result: Result) -> list[Prediction]:
    """Returns the predictions of the test part of a fold; the mean of several networks is kept."""
    members = [place / f"seed_{seed}" for seed in result["seeds"]] if "seeds" in result else [place]
    found: dict[str, list[Prediction]] = {}
    for member in members:
        for row in read_predictions(member / "predictions.csv"):
            if row.split == "test":
                found.setdefault(row.id, []).append(row)
    if len(members) == 1:
        return [row for (row,) in found.values()]
    mean = [
        rows[0]._replace(
            prediction=float(np.mean([row.prediction for row in rows])), low=math.nan, high=math.nan
        )
        for rows in found.values()
    ]
    write_predictions(place / "predictions.csv", mean)
    return mean


def _refuse_fixed(config: ConfigDict) -> None:
    """Refuses fields that would change nothing: the folds or the model to start from decide them.

    Raises:
        UserError: some are set.
    """
    variants = (defaults.variant(defaults.matbench(), name) for name in ("", "smoke"))
    given, usual, small = (flatten_dict(one.to_dict(), sep=".") for one in (config, *variants))
    fixed = [f"data.{name}" for name in _OF_THE_FOLDS]
    of_start = [name for name in usual if name.startswith(("network.", "graph."))]
    fixed += of_start if config.start_from else ["strategy"]
    wrong = [
        f"config.{name} = {given[name]}"
        for name in fixed
        if given.get(name) not in (usual.get(name), small.get(name))
    ]
    if wrong:
        start = "the model to start from" if config.start_from else "the start from random weights"
        raise UserError(
            f"the official folds and {start} decide these fields; leave them out:\n{listed(wrong)}"
        )


def _read_labels(config: ConfigDict, target: str) -> np.ndarray:
    """Returns the labels of all rows, which the folds are drawn on.

    Raises:
        UserError: a row has no label, or the table is that of something else.
    """
    rows = read_rows(config.data.path, Wanted("", ()))  # no crystal is read
    labels = numeric_column(rows, target)
    if blank := int(np.isnan(labels).sum()):
        raise UserError(
            f"{config.data.path}: {counted(blank, 'row')} without a label in {target!r}; the "
            "folds are those of the whole table, as it is downloaded"
        )
    if list(rows.ids) != [str(number) for number in range(len(labels))]:
        raise UserError(
            f"{config.data.path}: the index of the rows is not 0, 1, 2, ...; the folds are those "
            "of the table as it is downloaded (docs/data.md says where)"
        )
    return labels


def _fold_config(config: ConfigDict, fold: int, target: str, unit: str) -> ConfigDict:
    """Returns the config of the run on a fold, none of whose crystals may be left out."""
    values = config.to_dict()
    del values["task"]
    start, strategy = values.pop("start_from"), values.pop("strategy")
    if start:  # whose network and graphs are used
        del values["graph"], values["network"]
        values |= {"experiment": "finetune", "start_from": start, "strategy": strategy}
    else:
        values |= {"experiment": "scratch", "leave_out_elements": ""}
    one = ConfigDict(values)
    one.data.update(target=target, unit=unit, fold=fold, **_OF_THE_FOLDS)
    return one


def _how_trained(config: ConfigDict) -> str:
    if config.start_from and config.strategy.startswith("gaussian_process"):
        return "fitted to the training part of each fold"
    return "trained on each fold with a tenth of its training part to choose the checkpoint"


def _write_files(
    config: ConfigDict,
    workdir: Path,
    folds: Sequence[Mapping[str, float]],
    scores: Sequence[Mapping[str, float]],
) -> None:
    """Writes what the site of Matbench takes: results.json.gz and info.json."""
    parameters: dict[str, Any] = {"training": config.training.to_dict()}
    kind = config.network.trunk.kind
    algorithm, how = f"jaxmat {kind}", f"The trunk {kind} of jaxmat {jaxmat.__version__}"
    if config.start_from:
        start = Path(config.start_from).name
        parameters |= {"start_from": start, "strategy": config.strategy}
        algorithm = f"jaxmat, transferred from {start}"
        how = f"A model of jaxmat {jaxmat.__version__}, {config.strategy} from {start}"
    else:
        parameters["network"] = config.network.to_dict()
    results = {
        f"fold_{fold}": {
            "data": dict(predictions),
            "parameters": json.loads(json.dumps(parameters)),
            "scores": dict(fold_scores),
            "uncertainty": None,
        }
        for fold, (predictions, fold_scores) in enumerate(zip(folds, scores, strict=True))
    }
    content: dict[str, Any] = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": _VERSION,
        "tasks": {
            config.task: {
                "@module": "matbench.task",
                "@class": "MatbenchTask",
                "benchmark_name": "matbench_v0.1",
                "dataset_name": config.task,
                "results": results,
            }
        },
        "user_metadata": {"jaxmat": jaxmat.__version__},
        "benchmark_name": "matbench_v0.1",
        "datestamp": datetime.now(UTC).strftime("%Y.%m.%d %H:%M.%S"),
    }
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    content["hash"] = hashlib.sha256(text.encode()).hexdigest()
    with whole_file(workdir / "results.json.gz") as unfinished:
        unfinished.write_bytes(gzip.compress(json.dumps(content, allow_nan=False).encode()))
    info = {
        "authors": "",
        "algorithm": algorithm,
        "algorithm_long": f"{how}, {_how_trained(config)}.",
        "bibtex_refs": "",
        "notes": "Fill in authors and references before you submit.",
        "requirements": {
            "python": [f"{name}=={version(name)}" for name in ("jax", "flax", "optax", "pymatgen")]
        },
    }
    write_json(workdir / "info.json", info)
