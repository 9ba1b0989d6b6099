"""Experiments: what a config can ask for, and how it is run."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import single
from jaxmat.experiments.choose import choose
from jaxmat.experiments.evaluate import evaluate
from jaxmat.experiments.fields import fields
from jaxmat.experiments.inputs import input_files, keep_inputs, refuse_changed
from jaxmat.experiments.left_out import train_and_measure
from jaxmat.experiments.matbench import matbench
from jaxmat.experiments.pages import PAGE, summarize, write_page
from jaxmat.experiments.population import population, train_population
from jaxmat.experiments.quickstart import quickstart
from jaxmat.experiments.ranges import check_config
from jaxmat.experiments.single import Stop, never
from jaxmat.experiments.workdir import (
    LOG,
    RESULT,
    lock,
    open_workdir,
    read_result,
    refuse_foreign,
    refuse_other_config,
)
from jaxmat.runtime import hosts
from jaxmat.runtime.files import refuse_addresses
from jaxmat.runtime.logs import logged_to
from jaxmat.runtime.stopping import Stopped, passing_signals_on

_logger = logging.getLogger(__name__)

TRAININGS = ("scratch", "pretrain", "finetune", "gaussian_process")


def run(
    config: ConfigDict, workdir: str | Path, stop: Stop | None = None, *, stays: bool = True
) -> dict[str, Any] | None:
    """Runs a config in a work directory, or goes on with it there.

    Args:
        config: as from a file in configs/ or from `jaxmat.experiments.defaults`.
        workdir: directory of the run; a finished run is not repeated.
        stop: asked after every step of a training, with its number, whether to save and return.
            None: SIGINT, SIGTERM and SIGUSR1 do it; they are passed on when all is saved, so that
            SIGINT raises KeyboardInterrupt.
        stays: whether the directory stays where it is; there is no page in one that does not, and
            none of its files is named.

    Returns:
        The result, as it stands in result.json; None where the run was stopped.

    Raises:
        UserError: anything in the config or the files it names that the user can mend.
    """
    workdir = Path(workdir)
    if stop is None:
        with passing_signals_on() as stop:
            return run(config, workdir, stop, stays=stays)
    try:
        result = carry_out(config, workdir, stop)
    except Stopped:  # before a training or after it
        return None
    if result is not None and config.experiment != "study" and hosts.is_first():
        _tell(workdir, config, result, stays)
    return result


def _tell(workdir: Path, config: ConfigDict, result: dict[str, Any], stays: bool) -> None:
    """Writes the page of a finished run, if there is none, and says what came of it and where."""
    try:
        if stays and not (workdir / PAGE).exists():
            write_page(workdir, config, result)
        _logger.info("%s", summarize(workdir, config, result, with_places=stays))
    except (UserError, AttributeError, LookupError, OSError, TypeError, ValueError) as damage:
        what = damage if isinstance(damage, UserError) else "a file holds something else"
        _logger.warning(
            "The run in %s is done, but not all that it has left can be read (%s). Delete its %s "
            "and start the same command again: what is missing is made from the checkpoints.",
            *(workdir, what, RESULT),
        )


def carry_out(config: ConfigDict, workdir: Path, stop: Stop = never) -> dict[str, Any] | None:
    """Runs a config as `run` does, without a page and a summary: one of many perhaps."""
    check_config(config)
    refuse_addresses({"workdir": workdir, **{f"config.{k}": v for k, v in fields(config).items()}})
    _refuse_processes(config)
    refuse_foreign(workdir, config)
    if config.experiment == "study":
        # Imported here, because it brings libraries that a training does without: 60 MB.
        from jaxmat.experiments.study import run_study
        from jaxmat.experiments.study.runner import Trainer

        return run_study(config, workdir, Trainer(carry_out, train_population, stop))
    refuse_other_config(workdir, config)
    files = input_files(config)
    refuse_changed(workdir, files)
    if (result := read_result(workdir)) is not None:
        _logger.info("%s was finished before: nothing is trained again", workdir)
        return result
    if stop(0):
        return None
    with lock(workdir), logged_to(workdir / LOG):
        open_workdir(workdir, config)
        keep_inputs(workdir, files)
        return _run(config, workdir, stop)


def _run(config: ConfigDict, workdir: Path, stop: Stop) -> dict[str, Any] | None:
    if config.experiment == "quickstart":
        return quickstart(config, workdir, functools.partial(carry_out, stop=stop))
    if config.experiment == "matbench":
        return matbench(config, workdir, functools.partial(carry_out, stop=stop))
    if config.experiment == "choose":
        return choose(config, workdir, stop)
    if config.experiment == "evaluate":
        return evaluate(config, workdir)
    if config.get("leave_out_elements"):
        return train_and_measure(config, workdir, stop)
    train = single.train_one if config.population == 1 else population
    return train(config, workdir, stop)


def _refuse_processes(config: ConfigDict) -> None:
    """Refuses several processes where they would not share one training.

    Raises:
        UserError: so it is.
    """
    one_training = config.experiment in TRAININGS and config.population == 1
    if jax.process_count() > 1 and not one_training:
        raise UserError(
            "--distributed is for one training: config.experiment scratch, pretrain or finetune "
            "with config.population=1. A study is divided among jobs: --config.job.cells=i/n."
        )
