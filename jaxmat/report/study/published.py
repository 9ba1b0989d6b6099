"""The published results of the same settings, beside those of a study."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmat.errors import UserError, listed
from jaxmat.report.rows import numbers_in, read_rows
from jaxmat.report.study.analysis import Groups, Setting, Summary, summarize
from jaxmat.report.study.results import CellResult

STRATEGIES = {
    "SCRATCH": "",
    "ALL-UF": "all_layers",
    "2B": "two_body",
    "3B": "three_body",
    "NPH": "new_head",
    "LAST-LAY": "last_layer",
    "1_cphd": "new_head_freeze_1",
    "6_cphd": "new_head_freeze_6",
    "MPT-new-head": "all_layers",  # of several heads none is continued
}
# As a study calls pre-training on all properties but the target's; its size was never another.
OTHERS = "others"

# Half the range of all labels of a set, which is one scaled unit of the published runs, and its
# unit. The labels of their data files, unscaled, with the ranges of the sets that they come from.
HALF_RANGES = {
    "pz": ((46.192855 - 0.000006) / 2, "C/m^2"),
    "dc": ((277.78 - 2.08) / 2, "1"),
    "ph": ((3643.743437099969 - 59.585774323706815) / 2, "1/cm"),
    "ebg": (11.7 / 2, "eV"),
    "gv": (math.log10(523) / 2, "log10(GPa)"),
    "bg": (9.7212 / 2, "eV"),
    "fe": ((2.4995497873022243 + 4.612092007715516) / 2, "eV/atom"),
    "jarvis2d": (7.314 / 2, "eV"),
}

_COLUMNS = (
    "pt_property pt_size ft_property ft_size strategy learning_rate trial use "
    "fixed_mae fixed_r2 train_mae"
).split()
_NUMBERS = ("learning_rate", *_COLUMNS[-3:])
# Trial 5 from random weights, of these sets, used lists of crystals that were not released.
_LOST_TRIAL, _LOST_SETS = "5", ("ph", "gv", "ebg", "pz")


class Key(NamedTuple):
    """What a published run and a cell have in common; see `Setting`. "" for scratch."""

    source: str
    source_size: int | None
    target: str
    target_size: int
    strategy: str


class Run(NamedTuple):
    """One published run: errors in scaled units, against test labels scaled as in training."""

    learning_rate: float | None
    trial: str
    test_mae: float
    test_r2: float
    train_mae: float


class Comparison(NamedTuple):
    """A setting of a study beside the published runs of it.

    Attributes:
        setting: the setting.
        unit: of the errors that are not scaled.
        trials: of the study, those that the published runs have, too.
        published_trials: of the published runs, those that the study has, too.
        test_mae: of the study, mean over its trials.
        test_mae_spread: standard deviation over trials, NaN for one; so the others.
        published_mae: published, in `unit`.
        published_mae_spread: likewise.
        test_mae_scaled: of the study, in units of half the range of all labels, as published.
        published_mae_scaled: published, scaled.
        test_r2: of the study.
        published_r2: published.
        train_mae: of the study, in `unit`.
        published_train_mae: published, in `unit`.
    """

    setting: Setting
    unit: str
    trials: int
    published_trials: int
    test_mae: float
    test_mae_spread: float
    published_mae: float
    published_mae_spread: float
    test_mae_scaled: float
    test_mae_scaled_spread: float
    published_mae_scaled: float
    published_mae_scaled_spread: float
    test_r2: float
    published_r2: float
    train_mae: float
    published_train_mae: float


def read_published(path: str | os.PathLike[str]) -> dict[Key, list[Run]]:
    """Reads the runs that were used, of settings that a study can have.

    Runs on lists of crystals that were not released are left out: no study can have these.

    Args:
        path: results.csv with one row a published run; `use` is 1 for those to use, and in the
            columns `fixed_*` test labels have the scale of the training labels (the published
            piezoelectric ones have not).

    Raises:
        UserError: there is no such file, columns are missing, or a number is none.
    """
    runs: dict[Key, list[Run]] = {}
    problems = []
    for number, line in read_rows(path, _COLUMNS):
        if line["use"] != "1" or not (key := _key(line)):
            continue
        if not key.source and key.target in _LOST_SETS and line["trial"] == _LOST_TRIAL:
            continue
        numbers, wrong = numbers_in(line, _NUMBERS)
        problems += [f"line {number}: {cell}" for cell in wrong]
        rate, *errors = numbers.values()
        known = None if math.isnan(rate) else rate
        runs.setdefault(key, []).append(Run(known, line["trial"], *errors))
    if problems:
        raise UserError(f"{path}: rows that are not results\n{listed(problems)}")
    return runs


def compare_with_published(groups: Groups, published: Mapping[Key, list[Run]]) -> list[Comparison]:
    """Puts published runs beside the settings of a study, over the trials that both have.

    A published run whose learning rate is known stands only beside a setting with that rate. Runs
    without a number of a trial repeat one that has it; where there are no others, they stand
    beside all trials.

    Args:
        groups: cells that are done by setting.
        published: from `read_published`.

    Raises:
        UserError: a target that was published has another unit in the study.
    """
    comparisons = []
    for setting, rows in groups.items():
        runs = [
            run
            for run in published.get(_setting_key(setting), [])
            if run.learning_rate in (None, setting.learning_rate)
        ]
        ours, theirs = _of_the_same_trials(rows, runs)
        if theirs and (summary := summarize({setting: ours}).get(setting)):
            comparisons.append(_comparison(summary, theirs))
    return comparisons


def _of_the_same_trials(
    rows: Sequence[CellResult], runs: Sequence[Run]
) -> tuple[Sequence[CellResult], Sequence[Run]]:
    """Returns cells and published runs of the trials that both have."""
    if not any(run.trial for run in runs):
        return rows, runs
    tested = {str(row.trial) for row in rows if math.isfinite(row.test_mae)}
    runs = [run for run in runs if run.trial in tested]
    trials = {run.trial for run in runs}
    return [row for row in rows if str(row.trial) in trials], runs


def _comparison(summary: Summary, runs: Sequence[Run]) -> Comparison:
    half_range, unit = HALF_RANGES[summary.setting.target]
    if unit != summary.unit:
        raise UserError(
            f"Published results of {summary.setting.target} are in {unit}, those of the study in "
            f"{summary.unit!r}: give its target that unit, or leave the published results out."
        )
    mae = np.array([run.test_mae for run in runs])
    spread = float(np.std(mae, ddof=1)) if len(runs) > 1 else math.nan
    return Comparison(
        setting=summary.setting,
        unit=unit,
        trials=summary.trials,
        published_trials=len(runs),
        test_mae=summary.test_mae,
        test_mae_spread=summary.test_mae_spread,
        published_mae=float(np.mean(mae)) * half_range,
        published_mae_spread=spread * half_range,
        test_mae_scaled=summary.test_mae / half_range,
        test_mae_scaled_spread=summary.test_mae_spread / half_range,
        published_mae_scaled=float(np.mean(mae)),
        published_mae_scaled_spread=spread,
        test_r2=summary.test_r2,
        published_r2=float(np.mean([run.test_r2 for run in runs])),
        train_mae=summary.train_mae,
        published_train_mae=float(np.mean([run.train_mae for run in runs])) * half_range,
    )


def _setting_key(setting: Setting) -> Key:
    strategy = "" if setting.kind == "scratch" else setting.strategy
    source_size = None if setting.source == OTHERS else setting.source_size
    return Key(setting.source, source_size, setting.target, setting.target_size, strategy)


def _key(line: Mapping[str, str]) -> Key | None:
    """Returns the key of a row, None where a study has no such setting."""
    target, strategy = line["ft_property"].lower(), line["strategy"]
    source_size, target_size = line["pt_size"], line["ft_size"]
    if line["strategy"] in ("1_cphd", "6_cphd"):
        # These folders do not say the sizes: 448 training rows are those of 500 labels, and 941
        # is the size of the other runs that chose hyper-parameters.
        source_size, target_size = source_size or "941", target_size or "500"
    sizes = [_size(source_size), _size(target_size)]
    if target not in HALF_RANGES or strategy not in STRATEGIES or sizes[1] is None:
        return None
    source = OTHERS if strategy == "MPT-new-head" else line["pt_property"].lower()
    if (strategy in ("SCRATCH", "MPT-new-head")) != (sizes[0] is None):
        return None
    return Key(source, sizes[0], target, sizes[1], STRATEGIES[strategy])


def _size(text: str) -> int | None:
    """Returns a number of labels, as in 941 or 10K; None for any other text."""
    digits = text.removesuffix("K")
    return int(digits) * (1000 if text.endswith("K") else 1) if digits.isdecimal() else None
