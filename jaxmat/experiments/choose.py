"""Which checkpoint to fine-tune, and how: cross-validation on the training labels, then the model.

The test part is set aside first. The other labels are cut into folds; a network that predicts a
fold is trained on the others exactly as the final one will be, the choice of its checkpoint on a
validation part among them included. The final model is trained on all labels but the test part's.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.splits import write_split
from jaxmat.errors import UserError, listed
from jaxmat.experiments.defaults import split_names
from jaxmat.experiments.population import train_population
from jaxmat.experiments.prepare import Prepared, graph_settings, prepare
from jaxmat.experiments.workdir import RESULT, write_json
from jaxmat.report.choice import (
    COMPARISON,
    SCRATCH,
    Comparison,
    Option,
    compare,
    draw_comparison,
    format_choice,
    recommend,
    write_comparison,
)
from jaxmat.report.predictions import read_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.runtime.files import rejoin_paths
from jaxmat.transfer.strategies import get_strategy

_logger = logging.getLogger(__name__)

Result = dict[str, Any]
Stop = Callable[[int], bool]
Split = Mapping[str, Sequence[str]]


class _Stopped(Exception):
    """A training was told to save and return."""


class _Folds(NamedTuple):
    """The labels to choose with.

    Attributes:
        labels: id → label, in the property's unit.
        splits: name of a fold → what its run trains on, validates on and predicts.
    """

    labels: dict[str, float]
    splits: dict[str, Split]


def choose(config: ConfigDict, workdir: Path, stop: Stop) -> Result | None:
    """Compares sources and strategies, and trains the final model with the best of them.

    Args:
        config: see `jaxmat.experiments.defaults.choose`.
        workdir: gets options/<option>/<fold>, the comparison, and final, the run of the model.
        stop: asked after every step of a training whether to save and return.

    Returns:
        The result, or None where a training was stopped.

    Raises:
        UserError: a config or table that cannot be used, or no option can be trained.
    """
    options = _options(config, workdir)
    settings = graph_settings(config)
    data = prepare(config.data, config.seed, settings, workdir)
    folds = _make_folds(config, data)
    _logger.info("%d options, %d trainings each", len(options), len(folds.splits))
    try:
        if "pretrain" in config:
            _train([config.pretrain], [workdir / "pretrain"], workdir / "pretrain", stop)
        comparison = _compare(config, workdir, options, data, folds, stop)
        (name,) = data.transforms
        directories = {option: str(_place(options, option)) for option in options}
        write_comparison(workdir / COMPARISON, comparison, directories)
        draw_comparison(workdir / "comparison.png", comparison, name)
        _logger.info("%s", recommend(comparison, name))
        best = _run_config(config, comparison.scores[0].option, config.seed)
        (final,) = _train([best], [workdir / "final"], workdir / "final", stop)
    except _Stopped:
        return None
    return _write_result(config, workdir, comparison, final)


def draw_folds(
    ids: Sequence[str], folds: int, n_validation: int, seed: int
) -> list[dict[str, list[str]]]:
    """Cuts crystals into folds, each the test part of a split whose other parts are the rest.

    Args:
        ids: of the crystals, each once.
        folds: how many; their sizes differ by one at most.
        n_validation: crystals of the validation part, one more where a fold is smaller: all train
            on the same number, so that they fit into one program.
        seed: of the drawing.

    Raises:
        UserError: there are fewer crystals than folds, or fewer than two are left to train on.
    """
    n_train = len(ids) - math.ceil(len(ids) / folds) - n_validation
    if n_train < 2 or folds > len(ids):
        raise UserError(
            f"{len(ids)} training labels are too few for {folds} folds with {n_validation} "
            "crystals to validate on: each fold needs one, and at least two to train on. Give more "
            "labels, or lower config.folds or config.data.n_validation."
        )
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    shuffled = np.random.RandomState([seed, 2]).permutation(sorted(ids)).tolist()
    bounds = [len(ids) * k // folds for k in range(folds + 1)]
    splits = []
    for start, end in itertools.pairwise(bounds):
        rest = shuffled[end:] + shuffled[:start]
        splits.append(
            {"train": rest[:n_train], "validation": rest[n_train:], "test": shuffled[start:end]}
        )
    return splits


def _options(config: ConfigDict, workdir: Path) -> list[Option]:
    """Returns what is to be compared, each once; checks the fields that say so."""
    for field, least in (("folds", 2), ("repeats", 1), ("population", 1)):
        if config[field] < least:
            raise UserError(f"config.{field} is {config[field]}; use {least} or more.")
    if config.data.scaling_labels != "training":
        raise UserError(
            "config.data.scaling_labels has to be 'training': with test labels in the scaling the "
            "choice would have seen them."
        )
    sources = rejoin_paths(split_names(config.candidates))
    strategies = split_names(config.strategies)
    if "pretrain" in config:
        sources.append(str(workdir / "pretrain"))
    if not (sources and strategies):
        raise UserError(
            "There is nothing to choose from: give checkpoints to start from (bundles, directories "
            "of runs or checkpoints), --config.candidates=DIR,DIR, and --config.strategies=NAME,"
            "NAME of jaxmat.transfer.strategies. To train without a checkpoint, use "
            "configs/scratch.py."
        )
    for strategy in strategies:
        get_strategy(strategy)
    pairs = [Option(*pair) for pair in itertools.product(sources, strategies)]
    return list(dict.fromkeys([SCRATCH, *pairs] if config.scratch else pairs))


def _make_folds(config: ConfigDict, data: Prepared) -> _Folds:
    """Returns the folds of all labels but the test part's."""
    labels = {
        id: float(label)
        for part in ("train", "validation")
        for id, label in zip(data.ids[part], data.labels[part][:, 0], strict=True)
    }
    # The share that the final model validates on.
    n_validation = max(1, round(len(data.ids["validation"]) * (1 - 1 / config.folds)))
    splits: dict[str, Split] = {
        f"repeat_{repeat}_fold_{fold}": split
        for repeat in range(config.repeats)
        for fold, split in enumerate(
            draw_folds(list(labels), config.folds, n_validation, config.seed + repeat)
        )
    }
    return _Folds(labels, splits)


def _compare(
    config: ConfigDict,
    workdir: Path,
    options: Sequence[Option],
    data: Prepared,
    folds: _Folds,
    stop: Stop,
) -> Comparison:
    """Trains all options on all folds and compares their out-of-fold errors.

    Raises:
        UserError: no option can be trained.
        _Stopped: a training was stopped.
    """
    (transform,) = data.transforms.values()
    for name, split in folds.splits.items():
        write_split(_split_file(workdir, name), split)
    errors, failed = {}, {}
    for option in options:
        _logger.info("%s", option)
        try:
            runs = _train_folds(config, workdir, _place(options, option), option, folds, stop)
            errors[option] = _out_of_fold(runs, folds, config.repeats)
        # Another option may fit the table, or the memory.
        except (UserError, jax.errors.JaxRuntimeError) as error:
            failed[option] = str(error)
            _logger.warning("%s cannot be trained: %s", option, error)
    if not errors:
        reasons = [f"{option}: {reason}" for option, reason in failed.items()]
        raise UserError(f"None of the options can be trained:\n{listed(reasons)}")
    return compare(
        errors,
        _constant_errors(folds, config.repeats),
        folds=config.folds,
        unit=transform.unit,
        failed=failed,
    )


def _train_folds(
    config: ConfigDict, workdir: Path, place: Path, option: Option, folds: _Folds, stop: Stop
) -> list[Path]:
    """Trains an option on each fold; returns the directories of the runs."""
    runs = [workdir / place / name for name in folds.splits]
    configs = [
        _run_config(config, option, config.seed + i, split=str(_split_file(workdir, name)))
        for i, name in enumerate(folds.splits)
    ]
    for start in range(0, len(runs), config.population):
        together = slice(start, start + config.population)
        common = workdir / place / f"population_{start}"
        _train(configs[together], runs[together], common, stop)
    return runs


def _train(
    configs: Sequence[ConfigDict], runs: Sequence[Path], common: Path, stop: Stop
) -> list[Result]:
    results = train_population(configs, runs, common, stop)
    if results is None:
        raise _Stopped
    return results


def _run_config(config: ConfigDict, option: Option, seed: int, split: str = "") -> ConfigDict:
    """Returns the config of a training; without a split that of the final one."""
    how: dict[str, Any] = {"experiment": "scratch", "graph": config.graph.to_dict()}
    how["network"] = config.network.to_dict()
    if option != SCRATCH:
        how = {"experiment": "finetune", "start_from": option.source, "strategy": option.strategy}
    data = config.data.to_dict()
    if split:
        data["split"] = split
    common = {"seed": seed, "population": 1, "data": data, "training": config.training.to_dict()}
    return ConfigDict(how | common)


def _out_of_fold(runs: Sequence[Path], folds: _Folds, repeats: int) -> np.ndarray:
    """Returns the absolute error of each crystal, the mean over repeats, [crystals]."""
    totals = dict.fromkeys(folds.labels, 0.0)
    for run in runs:
        for row in read_predictions(run / "predictions.csv"):
            if row.split == "test":
                totals[row.id] += abs(row.prediction - row.target) / repeats
    errors = np.array(list(totals.values()))
    if not np.isfinite(errors).all():
        raise UserError("some of its predictions are not finite; use a lower learning rate.")
    return errors


def _constant_errors(folds: _Folds, repeats: int) -> np.ndarray:
    """Returns the same for the median of the labels that each fold trains on."""
    totals = dict.fromkeys(folds.labels, 0.0)
    for split in folds.splits.values():
        median = float(np.median([folds.labels[id] for id in split["train"]]))
        for id in split["test"]:
            totals[id] += abs(median - folds.labels[id]) / repeats
    return np.array(list(totals.values()))


def _place(options: Sequence[Option], option: Option) -> Path:
    """Returns where the runs of an option are, relative to the whole."""
    return Path("options") / f"{options.index(option)}_{option.strategy or 'scratch'}"


def _split_file(workdir: Path, name: str) -> Path:
    folder = workdir / "splits"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.json"


def _write_result(
    config: ConfigDict, workdir: Path, comparison: Comparison, final: Result
) -> Result:
    """Writes choice.md and result.json; returns the result."""
    best, name, unit = comparison.scores[0], final["property"], comparison.unit
    advice = recommend(comparison, name)
    tested = (
        f"The model in `final`, trained on {final['crystals']['train']} labels and validated on "
        f"{final['crystals']['validation']}, has a test MAE of "
        f"{format_quantity(final['test_mae'], unit)} on {final['crystals']['test']} crystals that "
        f"the choice has not seen (constant: {format_quantity(final['constant_test_mae'], unit)})."
    )
    text = f"# {name}: what to start from, and how to fine-tune\n\n{advice}\n\n{tested}\n\n"
    text += f"{format_choice(comparison)}\n\n{_explanation(config, comparison)}\n"
    (workdir / "choice.md").write_text(text, encoding="utf-8")
    _logger.info("%s\n\n%s", workdir / "choice.md", text)
    result = {
        "property": name,
        "unit": unit,
        "recommendation": advice,
        "source": best.option.source,
        "strategy": best.option.strategy,
        "expected_mae": comparison.expected.value,
        "expected_mae_standard_error": comparison.expected.error,
        "optimism": comparison.optimism,
        "constant_mae": comparison.constant.value,
        "out_of_fold_mae": {str(score.option): score.mae.value for score in comparison.scores},
        "failed": {str(option): reason for option, reason in comparison.failed.items()},
        **{key: final[key] for key in ("crystals", "test_mae", "constant_test_mae")},
    }
    write_json(workdir / RESULT, result)
    return result


def _explanation(config: ConfigDict, comparison: Comparison) -> str:
    """Returns how the numbers came about."""
    times = "once" if config.repeats == 1 else f"{config.repeats} times"
    return (
        f"Each of {comparison.labels} labels was predicted {times} by networks that have not seen "
        f"it ({config.folds} folds). A standard error is over crystals, in the columns that "
        "compare over the differences crystal by crystal, and is widened because the folds share "
        "training crystals (Nadeau and Bengio 2003). The least error wins. The best of several "
        "looks better than it is: the expected MAE is its out-of-fold MAE plus "
        f"{format_quantity(comparison.optimism, comparison.unit)} for that (Tsamardinos et al. "
        "2018). The final model has more labels than those of the folds, which speaks for an error "
        "a little lower than expected."
    )
