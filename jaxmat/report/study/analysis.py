"""What the cells of a study say together: means, spreads, and changes relative to a baseline."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmat.report.predictions import read_predictions
from jaxmat.report.study.results import CellResult
from jaxmat.report.study.statistics import (
    Errors,
    bootstrap_change,
    paired_change,
    spread_components,
)


class Setting(NamedTuple):
    """What distinguishes cells other than the trial and the seed; see `CellResult`."""

    kind: str
    source: str
    source_size: int | None
    target: str
    target_size: int
    strategy: str
    protocol: str
    learning_rate: float | None


class Summary(NamedTuple):
    """A setting over its trials: means and their standard deviations; see `CellResult`.

    Attributes:
        setting: the setting.
        unit: of the errors that are not scaled.
        trials: number of trials with a test error.
        runs: number of runs with one; more than `trials` where there are several seeds.
        diverged: number of runs that are done without a test error that is finite.
        test_mae: mean over trials, of each trial the mean over its seeds; so the others.
        test_mae_spread: standard deviation over trials, NaN for one; so the others.
        sample_spread: part of it that comes from the sample of labels, NaN where not identified.
        seed_spread: part of it that comes from the seed, for one seed; NaN where not identified.
    """

    setting: Setting
    unit: str
    trials: int
    runs: int
    diverged: int
    test_mae: float
    test_mae_spread: float
    sample_spread: float
    seed_spread: float
    test_r2: float
    test_r2_spread: float
    test_mae_scaled: float
    test_mae_scaled_spread: float
    train_mae: float
    train_mae_spread: float
    constant_test_mae: float
    seconds: float
    gaussian_process_test_mae: float = math.nan
    validation_mae: float = math.nan


class Relative(NamedTuple):
    """The test error of a setting relative to a baseline on the same target and label count.

    Attributes:
        setting: the setting.
        baseline_strategy: of the baseline.
        baseline_learning_rate: of the baseline.
        trials: number of trials that both have; all numbers are over these.
        change: of the geometric mean, -0.2 where the error is a fifth less.
        low: lower end of the 95 % interval over trials, NaN for one trial.
        high: upper end.
        crystals_low: lower end of the 95 % interval over test crystals, NaN without predictions.
        crystals_high: upper end.
    """

    setting: Setting
    baseline_strategy: str
    baseline_learning_rate: float | None
    trials: int
    change: float
    low: float
    high: float
    crystals_low: float = math.nan
    crystals_high: float = math.nan


Groups = Mapping[Setting, Sequence[CellResult]]


def setting_of(row: CellResult) -> Setting:
    """Returns the setting of a cell."""
    return Setting(*(getattr(row, name) for name in Setting._fields))


def by_setting(rows: Iterable[CellResult]) -> dict[Setting, list[CellResult]]:
    """Returns the cells that are done of each setting, in the order of the table."""
    groups: dict[Setting, list[CellResult]] = {}
    for row in rows:
        if row.status == "done":
            groups.setdefault(setting_of(row), []).append(row)
    return groups


def summarize(groups: Groups) -> dict[Setting, Summary]:
    """Returns the summary of each setting that has a finite test error."""
    summaries = {}
    for setting, rows in groups.items():
        values = {
            name: _by_trial(rows, name)
            for name in ("test_mae", "test_r2", "test_mae_scaled", "train_mae")
        }
        trials = values["test_mae"]
        if not trials:
            continue
        runs = sum(map(len, trials.values()))
        sample, seed = spread_components(trials.values())
        numbers = {}
        for name, of in values.items():
            numbers[name], numbers[f"{name}_spread"] = _mean_and_spread(of)
        summaries[setting] = Summary(
            setting=setting,
            unit=rows[0].unit,
            trials=len(trials),
            runs=runs,
            diverged=len(rows) - runs,
            sample_spread=sample,
            seed_spread=seed,
            constant_test_mae=_mean_and_spread(_by_trial(rows, "constant_test_mae"))[0],
            seconds=_mean_and_spread(_by_trial(rows, "seconds"))[0],
            gaussian_process_test_mae=_mean_and_spread(
                _by_trial(rows, "gaussian_process_test_mae")
            )[0],
            validation_mae=_mean_and_spread(_by_trial(rows, "validation_mae"))[0],
            **numbers,
        )
    return summaries


def relative_to_scratch(groups: Groups, errors: Mapping[str, Errors]) -> dict[Setting, Relative]:
    """Compares each fine-tuned setting with training from scratch.

    Args:
        groups: cells by setting.
        errors: id of a cell → errors on its test crystals, where they are at hand.
    """
    scratch = [setting for setting in groups if setting.kind == "scratch"]
    relative = {}
    for setting in groups:
        same = [
            other
            for other in scratch
            if (other.target, other.target_size, other.protocol)
            == (setting.target, setting.target_size, setting.protocol)
        ]
        if setting.kind == "finetune":
            relative[setting] = _relative(setting, same, groups, errors)
    return {setting: change for setting, change in relative.items() if change}


def relative_to_strategy(groups: Groups, reference: str) -> dict[Setting, Relative]:
    """Compares each fine-tuned setting with that of another strategy, otherwise the same."""
    relative = {}
    for setting in groups:
        same = [
            other
            for other in groups
            if other == setting._replace(strategy=reference, learning_rate=other.learning_rate)
        ]
        if setting.kind == "finetune" and setting.strategy != reference:
            relative[setting] = _relative(setting, same, groups, {})
    return {setting: change for setting, change in relative.items() if change}


def predictions_file(folder: Path, row: CellResult) -> Path | None:
    """Returns the file of predictions of a cell, None where there is none."""
    file = folder / row.directory / "predictions.csv"
    return file if row.directory and file.is_file() else None


def read_test_errors(folder: Path, rows: Iterable[CellResult]) -> dict[str, Errors]:
    """Reads the predictions of finished cells where they are there: id of a cell → errors.

    Args:
        folder: of the study.
        rows: cells.

    Raises:
        UserError: a file of predictions cannot be read.
    """
    errors = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # cells share their test crystals
    for row in rows:
        if row.status == "done" and (file := predictions_file(folder, row)):
            tested = [
                (line.id, abs(line.prediction - line.target))
                for line in read_predictions(file)
                if line.split == "test" and not math.isnan(line.target)
            ]
            ids = tuple(id for id, _ in tested)
            errors[row.cell] = Errors(known.setdefault(ids, ids), np.array([e for _, e in tested]))
    return errors


def _relative(
    setting: Setting, candidates: Sequence[Setting], groups: Groups, errors: Mapping[str, Errors]
) -> Relative | None:
    """Compares a setting with one of the candidates, None where none will do.

    One at the same learning rate comes first. Where there is none, as when fine-tuning is tried
    at several rates and scratch at its own, the only one there is will do.
    """
    same_rate = [one for one in candidates if one.learning_rate == setting.learning_rate]
    chosen = same_rate or candidates
    if len(chosen) != 1:
        return None
    (baseline,) = chosen
    rows, baseline_rows = groups[setting], groups[baseline]
    ours, theirs = _by_trial(rows, "test_mae"), _by_trial(baseline_rows, "test_mae")
    trials = [t for t in ours if t in theirs and min(*ours[t], *theirs[t]) > 0]
    if not trials:
        return None
    change = paired_change(*([float(np.mean(of[t])) for t in trials] for of in (ours, theirs)))
    relative = Relative(setting, baseline.strategy, baseline.learning_rate, len(trials), *change)
    pairs = [
        (_mean_errors(rows, trial, errors), _mean_errors(baseline_rows, trial, errors))
        for trial in trials
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) == len(trials):
        _, low, high = bootstrap_change(known)
        relative = relative._replace(crystals_low=low, crystals_high=high)
    return relative


def _mean_errors(
    rows: Collection[CellResult], trial: int, errors: Mapping[str, Errors]
) -> Errors | None:
    """Returns each crystal's error in a trial, the mean over the seeds that tested it."""
    by_id: dict[str, list[float]] = {}
    for row in rows:
        if row.trial == trial and math.isfinite(row.test_mae) and row.cell in errors:
            for id, error in zip(*errors[row.cell], strict=True):
                by_id.setdefault(id, []).append(error)
    if not by_id:
        return None
    return Errors(tuple(by_id), np.array([np.mean(values) for values in by_id.values()]))


def _by_trial(rows: Iterable[CellResult], name: str) -> dict[int, list[float]]:
    """Returns the finite values of a column for each trial, one a seed."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if math.isfinite(value := getattr(row, name)):
            values.setdefault(row.trial, []).append(value)
    return values


def _mean_and_spread(trials: Mapping[int, Sequence[float]]) -> tuple[float, float]:
    """Returns mean and sample standard deviation over trials, NaN where there are too few."""
    means = [float(np.mean(values)) for values in trials.values()]
    return (
        float(np.mean(means)) if means else math.nan,
        float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
    )
