"""Several trials of one experiment, trained together in one program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.findings import Findings
from jaxmat.errors import UserError
from jaxmat.experiments.labelled import find_labelled
from jaxmat.experiments.single import Result, Stop, never, prepare_member
from jaxmat.experiments.splitting import find_split, is_grouped
from jaxmat.experiments.training_run import train
from jaxmat.experiments.workdir import (
    RESULT,
    lock,
    open_workdir,
    read_result,
    refuse_other_config,
    write_json,
)

# Metrics of which a population has the mean and the spread.
_AVERAGED = "((constant|gaussian_process)_)?test_(relative_)?mae"


def population(config: ConfigDict, workdir: Path, stop: Stop = never) -> Result | None:
    """Trains a config with as many seeds as it has a population, each as its own run would.

    Args:
        config: of a training; seeds count up from its seed.
        workdir: gets a directory seed_<n> for each, which is that of a single run.
        stop: asked after every step whether to save and return.

    Returns:
        Test errors of the members, their means and spreads; None where training was stopped.

    Raises:
        UserError: see `train_population`.
    """
    seeds = list(range(config.seed, config.seed + config.population))
    _refuse_uneven(config, seeds)
    workdirs = [workdir / f"seed_{seed}" for seed in seeds]
    results = train_population([_single(config, seed) for seed in seeds], workdirs, workdir, stop)
    if results is None:
        return None
    about = ("property", "properties", "unit", "log", "crystals")
    summary = {name: results[0][name] for name in about if name in results[0]}
    summary["seeds"] = seeds
    for name in (name for name in results[0] if re.match(_AVERAGED, name)):
        values = [result[name] for result in results]
        summary[name] = float(np.mean(values))
        summary[f"{name}_std"] = float(np.std(values, ddof=1))
        summary[f"{name}_by_seed"] = values
    summary["seconds"] = float(sum(result["seconds"] for result in results))
    write_json(workdir / RESULT, summary)
    return summary


def train_population(
    configs: Sequence[ConfigDict], workdirs: Sequence[Path], workdir: Path, stop: Stop = never
) -> list[Result] | None:
    """Trains configs that differ in seed, data and learning rate alone, in one program.

    Args:
        configs: of single trainings.
        workdirs: the directory of each; it gets what a single run leaves.
        workdir: gets the checkpoints of the population.
        stop: asked after every step whether to save and return.

    Returns:
        The result of each, or None where training was stopped.

    Raises:
        UserError: configs that do not fit into one program, or whose data cannot be used.
    """
    for config, member in zip(configs, workdirs, strict=True):
        refuse_other_config(member, config)
    results: list[Any] = [read_result(member) for member in workdirs]
    if None not in results:
        return results
    if stop(0):
        return None
    with ExitStack() as locks:
        for config, member in zip(configs, workdirs, strict=True):
            locks.enter_context(lock(member))
            open_workdir(member, config)
        members = [prepare_member(c, member) for c, member in zip(configs, workdirs, strict=True)]
        return train(members, workdir, stop)


def _refuse_uneven(config: ConfigDict, seeds: Sequence[int]) -> None:
    """Refuses groups that make training parts of different sizes, before any graph is built.

    Raises:
        UserError: so it is, or the table cannot be used.
    """
    if not is_grouped(config.data):
        return
    labelled = find_labelled(config.data, None, Findings(config.data.path))
    splits = [find_split(config.data, s, labelled, Findings(config.data.path)) for s in seeds]
    sizes = [len(split.train) for split in splits]
    if len(set(sizes)) > 1:
        raise UserError(
            f"With config.data.split_by={config.data.split_by} whole groups are drawn, so the "
            f"seeds train on different numbers of crystals ({', '.join(map(str, sizes))}), and "
            "cannot be one program. Start one training for each seed: --config.population=1 "
            "--config.seed=N."
        )


def _single(config: ConfigDict, seed: int) -> ConfigDict:
    single = ConfigDict(config.to_dict())
    single.seed, single.population = seed, 1
    return single
