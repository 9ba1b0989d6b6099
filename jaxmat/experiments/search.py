"""Candidates on folds, the cheap ones first, within a time: out-of-fold predictions of those left.

After two folds the worse half is dropped, but for what lies within a standard error of the best:
one round of successive halving (Jamieson and Talwalkar, AISTATS 2016). Where the time is up, those
two folds speak for what is left; candidates that have not even these are left out, and it is said
so.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import CHOSEN
from jaxmat.bundles.intervals import LEVEL, error_ratios
from jaxmat.data.splits import write_split
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.experiments.final import widen
from jaxmat.experiments.folds import Folds, Split
from jaxmat.experiments.prepare import PARTS
from jaxmat.experiments.total import Total, Work
from jaxmat.experiments.workdir import has_work, read_result
from jaxmat.report.choice import Option, estimate
from jaxmat.report.predictions import Prediction, read_predictions
from jaxmat.runtime import files
from jaxmat.training.metrics import conformal_factor

_logger = logging.getLogger(__name__)

# Folds after which candidates are dropped, and that they are compared on where the time is up.
FIRST = 2
# Up to so many labels a closed form is judged by leave-one-out, in a run of this name.
_MOST_LEFT_OUT, _LEAVE_ONE_OUT = 50, "leave_one_out"
# Of the time, for comparing; the rest is for the final model.
_SHARE = 0.7

Stop = Callable[[int], bool]
Result = dict[str, Any]
Train = Callable[[Sequence[ConfigDict], Sequence[Path], Stop], list[Result] | None]


class Stopped(Exception):
    """A training was told to save and return."""


class _OutOfTime(Exception):
    """The time for comparing is up."""


class Clock:
    """What stops trainings: a user, or the end of the time for comparing."""

    def __init__(self, minutes: float, stop: Stop, spent: float) -> None:
        """Starts it.

        Args:
            minutes: for all, the final model included; 0 for no limit.
            stop: asked after every step whether the user wants an end.
            spent: seconds of what was done before the user stopped it the last time.
        """
        self.minutes = minutes
        self.stop = stop
        seconds = 60 * minutes if minutes else math.inf
        self._begin = time.monotonic() - spent
        self._compare, self._end = _SHARE * seconds, seconds

    def is_late(self) -> bool:
        """Whether the time for comparing is up."""
        return time.monotonic() - self._begin > self._compare

    def left(self, compare: bool = False) -> float:
        """Returns the seconds that are left, of those for comparing or of all."""
        return (self._compare if compare else self._end) - (time.monotonic() - self._begin)

    def __call__(self, step: int) -> bool:
        """Whether a training is to save and return."""
        return self.stop(step) or self.is_late()


class Held(NamedTuple):
    """What a candidate says of crystals that its trainings have not seen.

    Attributes:
        prediction: the mean over repeats, in the unit, NaN where there is none yet, [crystals].
        error: absolute error, the mean over repeats, in the unit, [crystals].
        low: lower end of the interval, the mean over repeats, in the unit, [crystals].
        high: its upper end, [crystals].
        ratio: the error in scaled form over half the width of the interval, [crystals].
        seconds: that a training took.
    """

    prediction: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ratio: np.ndarray
    seconds: float

    def ends(self, transform: TargetTransform, recalibrated: bool) -> np.ndarray:
        """Returns predictions and ends of intervals in the unit, [3, crystals].

        Args:
            transform: of the property.
            recalibrated: whether the widths are those that `recalibrate` would give.
        """
        ends, known = np.stack([self.prediction, self.low, self.high]), np.isfinite(self.ratio)
        if not recalibrated or not known.any():
            return ends
        return widen(ends, transform, conformal_factor(self.ratio[known], LEVEL))


class Found(NamedTuple):
    """What a search has found out.

    Attributes:
        held: of candidates that went through the first folds, or all.
        dropped: candidates that were left out, and why.
        failed: candidates that could not be trained, and why.
    """

    held: dict[Option, Held]
    dropped: dict[Option, str]
    failed: dict[Option, str]


class Search:
    """Runs candidates on folds in their directories; what is done there is not done again.

    Attributes:
        total: of all trainings, once they run; the last, CHOSEN, is left.
    """

    total: Total

    def __init__(
        self,
        workdir: Path,
        folds: Folds,
        transform: TargetTransform,
        train: Train,
        make_config: Callable[[Option, int, str], ConfigDict],
        clock: Clock,
    ) -> None:
        """Writes the splits of the folds.

        Args:
            workdir: of the choice.
            folds: the labels and their folds.
            transform: scaling of the labels.
            train: trains configs in directories, together; None where it was stopped.
            make_config: from a candidate, the number of a fold and the file of its split ("": all
                labels, as the final model) to the config of a training.
            clock: what stops it.
        """
        self._folds, self._transform, self._workdir = folds, transform, workdir
        self._train, self._make_config, self._clock = train, make_config, clock
        self._seconds: dict[Option, float] = {}  # that a training took, with all around it
        (workdir / "splits").mkdir(parents=True, exist_ok=True)
        splits = dict(folds.splits)
        self._leaves_one_out = len(folds.labels) <= _MOST_LEFT_OUT and not folds.grouped
        if self._leaves_one_out:
            # A process says of each label that it is fitted to what the others make it expect. The
            # run is tested as well, on a last label: the test part is for what is picked.
            *others, validation, last = folds.labels
            splits[_LEAVE_ONE_OUT] = {"train": others, "validation": [validation], "test": [last]}
        self._files = {name: workdir / "splits" / f"{name}.json" for name in splits}
        for name, split in splits.items():
            _refuse_other(workdir, self._files[name], split)
            write_split(self._files[name], split)

    def run(self, options: Mapping[Option, Path]) -> Found:
        """Returns what is found out about candidates, those in closed form first.

        Args:
            options: candidates and their directories.

        Raises:
            Stopped: the user stopped a training.
        """
        found = Found({}, {}, {})
        names = list(self._folds.splits)
        self.total = self._count(options)
        for option in options:
            if option.is_closed_form:  # costs next to nothing, and is there when the time is up
                if held := self._attempt(option, options[option], names, found):
                    found.held[option] = held
        early: dict[Option, Held] = {}
        for option in options:
            if not option.is_closed_form:
                if held := self._attempt(option, options[option], names[:FIRST], found):
                    early[option] = held
                else:
                    self._leave_out(options[option])
        if len(names) > FIRST:
            errors = {o: held.error for o, held in (found.held | early).items()}
            dropped = worse_half(self._of_first_folds(errors), self._folds.number)
            found.dropped.update({o: why for o, why in dropped.items() if o in early})
            for option in found.dropped:
                self._leave_out(options[option])
            for option in early:
                self.total.expect([_name(options[option] / fold) for fold in names], 1.0)
        for option in (option for option in early if option not in found.dropped):
            if held := self._attempt(option, options[option], names, found):
                found.held[option] = held
                continue
            self._leave_out(options[option])
            if found.dropped.pop(option, None):  # the time is up
                found.held[option] = early[option]
        return found

    def _of_first_folds(self, errors: Mapping[Option, np.ndarray]) -> dict[Option, np.ndarray]:
        """Returns errors with NaN for the crystals that the first folds do not predict."""
        splits = list(self._folds.splits.values())[:FIRST]
        first = {id for split in splits for id in split["test"]}
        there = np.array([id in first for id in self._folds.labels])
        return {option: np.where(there, each, np.nan) for option, each in errors.items()}

    def _leave_out(self, place: Path) -> None:
        """Counts no more on the trainings of a candidate."""
        self.total.leave_out([_name(place / fold) for fold in self._folds.splits])

    def _count(self, options: Mapping[Option, Path]) -> Total:
        """Returns all that is to be trained; a closed form takes no time worth an estimate."""
        names = list(self._folds.splits)
        trained = {o: place for o, place in options.items() if not o.is_closed_form}
        work = {
            name: Work(1.0, option)
            for option, place in trained.items()
            for name in self._unfinished([place / fold for fold in names])
        }
        # The last has the labels of all folds.
        work[CHOSEN] = Work(len(names) / max(len(names) - 1, 1))

        def add(seconds: Mapping[str, float]) -> float:
            compare = sum(seconds.values()) - seconds.get(CHOSEN, 0.0)
            return min(compare, self._clock.left(compare=True)) + seconds.get(CHOSEN, 0.0)

        total = Total(work, add)
        later = [_name(place / fold) for place in trained.values() for fold in names[FIRST:]]
        total.expect(later, (len(trained) + 1) // 2 / max(len(trained), 1))
        return total

    def _attempt(
        self, option: Option, place: Path, names: Sequence[str], found: Found
    ) -> Held | None:
        """Runs a candidate on folds; where it cannot be done, writes down why."""
        _logger.info("%s, %d folds", option, len(names))
        try:
            runs = self._train_folds(option, place, names)
            held = self._gather(option, runs, names)
        except _OutOfTime:
            found.dropped[option] = (
                f"the time for comparing ({_SHARE:.0%} of {self._clock.minutes:g} minutes) was up; "
                "start it in another --workdir with more --minutes"
            )
            _logger.warning("%s is left out: %s", option, found.dropped[option])
            return None
        # Another candidate may fit the table, or the memory.
        except (UserError, jax.errors.JaxRuntimeError) as error:
            found.failed[option] = str(error)
            _logger.warning("%s cannot be trained: %s", option, error)
            return None
        return held

    def _train_folds(self, option: Option, place: Path, names: Sequence[str]) -> list[Path]:
        """Trains a candidate on folds; returns the directories of the runs."""
        if option.is_closed_form and self._leaves_one_out:
            names = [_LEAVE_ONE_OUT]
        runs = [place / name for name in names]
        numbers = {name: i for i, name in enumerate(self._folds.splits)}
        configs = [
            self._make_config(option, numbers.get(name, 0), str(self._files[name]))
            for name in names
        ]
        names_left, began = self._unfinished(runs), time.monotonic()
        if names_left and not option.is_closed_form and self._clock.is_late():
            raise _OutOfTime
        # A closed form takes no time worth a limit, and is what is always there to choose.
        stop = self._clock.stop if option.is_closed_form else self._clock
        if option.is_closed_form or not names_left:
            results = self._train(configs, runs, stop)
        else:
            with self.total.training(names_left) as finished:
                results = self._train(configs, runs, stop)
                finished += [
                    r
                    for r, run in zip(results or [], runs, strict=False)
                    if _name(run) in names_left
                ]
        if results is None:
            raise _OutOfTime if stop is self._clock and self._clock.is_late() else Stopped
        if names_left:
            self._seconds[option] = (time.monotonic() - began) / len(names_left)
        return runs

    def _unfinished(self, runs: Sequence[Path]) -> list[str]:
        """Returns the names of the runs that are still to be done."""
        return [_name(run) for run in runs if read_result(run) is None]

    def _gather(self, option: Option, runs: Sequence[Path], names: Sequence[str]) -> Held:
        """Returns what runs say of the crystals of folds.

        Raises:
            UserError: a prediction is not finite.
        """
        wanted = {id for name in names for id in self._folds.splits[name]["test"]}
        rows: dict[str, list[Prediction]] = {id: [] for id in self._folds.labels}
        for run in runs:
            parts = PARTS if run.name == _LEAVE_ONE_OUT else ("test",)
            for row in read_predictions(run / "predictions.csv"):
                if row.split in parts and row.id in wanted:
                    rows[row.id].append(row)
        if not all(np.isfinite(row.prediction) for each in rows.values() for row in each):
            raise UserError("some of its predictions are not finite; use a lower learning rate.")
        prediction, error, low, high, ratio = np.array(
            [self._mean(each) for each in rows.values()]
        ).T
        seconds = self._seconds_of(option, runs)
        return Held(prediction, error, low, high, ratio, seconds)

    def _seconds_of(self, option: Option, runs: Sequence[Path]) -> float:
        """Returns what a training takes with all around it, or took alone before a stop."""
        if option in self._seconds:
            return self._seconds[option]
        return float(np.mean([result["seconds"] for run in runs if (result := read_result(run))]))

    def _mean(self, rows: Sequence[Prediction]) -> list[float]:
        """Returns the arrays of `Held` at a crystal, means over its rows."""
        if not rows:
            return [math.nan] * 5
        target, prediction, low, high = np.array(
            [(row.target, row.prediction, row.low, row.high) for row in rows]
        ).T
        ratio = error_ratios(self._transform, target, prediction, low, high)
        means = prediction, np.abs(prediction - target), low, high, ratio
        return [float(np.mean(each)) for each in means]


def _refuse_other(workdir: Path, file: Path, split: Split) -> None:
    """Refuses to go on with runs on a fold that was cut otherwise: by an earlier version, say.

    Raises:
        UserError: there are such runs.
    """
    now = {part: list(ids) for part, ids in split.items()}
    if file.exists() and files.read_json(file) != now:
        if any(has_work(place) for place in workdir.glob(f"options/*/{file.stem}")):
            raise UserError(
                f"{workdir} has trainings on folds that are cut otherwise now ({file.name}); "
                "choose another --workdir."
            )


def _name(run: Path) -> str:
    """Returns the name of the training of an option on a fold."""
    return f"{run.parent.name}/{run.name}"


def worse_half(errors: Mapping[Option, np.ndarray], folds: int) -> dict[Option, str]:
    """Returns the candidates that are not worth going on with, and why.

    They are in the worse half, and more than a standard error of the difference behind the best.

    Args:
        errors: absolute errors of the first folds, NaN on other crystals, [crystals].
        folds: that the labels are cut into.
    """
    ranked = sorted(errors, key=lambda option: float(np.nanmean(errors[option])))
    best = errors[ranked[0]] if ranked else np.zeros(0)
    dropped = {}
    for option in ranked[(len(ranked) + 1) // 2 :]:
        there = ~np.isnan(errors[option] - best)
        behind = estimate((errors[option] - best)[there], folds, FIRST)
        if behind.value > behind.error:
            dropped[option] = (
                f"after {FIRST} folds it was in the worse half and "
                f"{behind.value / np.nanmean(best):.0%} behind the best"
            )
    return dropped
