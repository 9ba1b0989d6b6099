"""Evaluations of a training: what is written of them, the best variables, the end by patience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.bundles.model import Model, Predictor
from jaxmat.errors import UserError
from jaxmat.experiments.outcome import monitor, scores, validation_curve
from jaxmat.experiments.prepare import Prepared
from jaxmat.experiments.workdir import metrics_log
from jaxmat.training.checkpoints import Checkpoints
from jaxmat.training.loop import Metrics

Variables = dict[str, Any]


class Records:
    """Evaluates a run on its validation part, writes the numbers, keeps the variables to test.

    Attributes:
        workdir: of the run.
        checkpoints: of the variables.
        is_over: whether evaluations, as many as there is patience, brought nothing better. What
            comes after that, where others of a population go on, is not the run's any more.
    """

    def __init__(
        self,
        workdir: Path,
        data: Prepared,
        model: Model,
        config: ConfigDict,
        predictor: Predictor,
        step: int,
        of_several: bool,
    ) -> None:
        """Reads what was recorded before.

        Args:
            workdir: of the run.
            data: its data sets.
            model: what is trained.
            config: `training` of a config.
            predictor: of the network.
            step: number of steps done.
            of_several: whether others of a population may go on when it is over.
        """
        self.workdir, self._data, self._predictor = workdir, data, predictor
        self._config, self._of_several = config, of_several
        self._monitor = monitor(data.transforms)
        workdir.mkdir(parents=True, exist_ok=True)
        _, self._curve = validation_curve(workdir, self._monitor, until=step)
        self._log = metrics_log(workdir)
        self.checkpoints = Checkpoints(workdir, model.describe())
        self._best = self.checkpoints.best_metric()
        self.is_over = has_ended(self._curve, config.patience)

    def write(self, step: int, epoch: float, variables: Variables, means: Metrics) -> None:
        """Evaluates the variables of a step; `means` are written beside."""
        metrics = validate(self._data, self._predictor, variables)
        at = {"step": step, "epoch": epoch}
        self._log({**at, **{k: float(v) for k, v in means.items()}, **metrics})
        metric = metrics[self._monitor]
        self._curve = np.append(self._curve, metric)
        if metric < self._best:
            self._best = metric
            self.checkpoints.keep_best(variables, step, self._best)
        self.is_over = has_ended(self._curve, self._config.patience)
        if self.is_over and self._of_several and self._config.test_with == "last":
            self.checkpoints.keep_end(variables, step)

    def outcome(self, last: Variables) -> Variables | UserError:
        """Returns the variables to test, or why there are none.

        Args:
            last: of the last step of all.
        """
        if self._config.test_with == "last":
            return (self.checkpoints.load("end") if self.is_over else None) or last
        if not np.isfinite(self._best):
            return UserError(
                "The validation error was never finite, so there is no best checkpoint. Lower "
                "config.training.learning_rate, or look for extreme targets"
            )
        return self.checkpoints.load("best") or UserError(
            f"{self.checkpoints.folder / 'best'} holds no whole checkpoint any more. Bring it back "
            "from a copy, or start in an empty folder"
        )


def has_ended(curve: np.ndarray, patience: int) -> bool:
    """Whether so many evaluations in a row brought nothing better, now or before.

    Args:
        curve: errors, those that are not finite are never better, [evaluations].
        patience: number of evaluations; 0: any number.
    """
    lowest = np.minimum.accumulate(np.where(np.isfinite(curve), curve, np.inf))
    better = np.flatnonzero(lowest < np.append(np.inf, lowest[:-1]))
    waits = np.diff(np.append(better, len(curve))) - 1
    return bool(patience and (waits >= patience).any())


def validate(data: Prepared, predictor: Predictor, variables: Variables) -> dict[str, float]:
    """Returns the metrics of the validation part."""
    part = "validation"
    return scores(predictor(variables, data.datasets[part]), data, part)
