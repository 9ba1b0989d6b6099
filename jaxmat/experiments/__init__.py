"""Experiments: what a config can ask for, and how it is run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import single
from jaxmat.experiments.quickstart import quickstart
from jaxmat.experiments.single import Stop, never
from jaxmat.experiments.workdir import open_workdir, read_result

EXPERIMENTS = {
    "scratch": single.scratch,
    "pretrain": single.scratch,
    "finetune": single.finetune,
    "evaluate": single.evaluate,
}


def run(config: ConfigDict, workdir: str | Path, stop: Stop = never) -> dict[str, Any] | None:
    """Runs a config in a working directory, or goes on with it there.

    Args:
        config: as from a file in configs/ or from `jaxmat.experiments.defaults`.
        workdir: directory of the run; a finished run is not repeated.
        stop: asked after every step of a training, with its number, whether to save and return.

    Returns:
        The result, as it stands in result.json; None where the run was stopped.

    Raises:
        UserError: anything in the config or the files it names that the user can mend.
    """
    workdir = Path(workdir)
    open_workdir(workdir, config)
    if (result := read_result(workdir)) is not None:
        return result
    if config.experiment == "quickstart":
        return quickstart(config, workdir, functools.partial(run, stop=stop))
    if config.experiment not in EXPERIMENTS:
        raise UserError(
            f"config.experiment is {config.experiment!r}; use quickstart or one of "
            f"{', '.join(EXPERIMENTS)}."
        )
    return EXPERIMENTS[config.experiment](config, workdir, stop)
