"""Runs the cells of a study: shared pre-trainings first, failures aside, no work done twice."""

from __future__ import annotations

import enum
import hashlib
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments.study.cells import Cell, Run, pretrainings
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.runs import ERROR, Study, run_config, run_length, state_of
from jaxmat.experiments.total import Total, Work
from jaxmat.experiments.training_run import MembersFailed
from jaxmat.runtime.stopping import giving_up_at_once

_logger = logging.getLogger(__name__)

# Between two looks at runs that other processes are busy with.
_POLL_SECONDS = 2.0


class Trainer(NamedTuple):
    """How runs are done.

    Attributes:
        run: runs a config in a directory; None where it was stopped.
        run_population: runs several that differ in seed, data and learning rate as one program,
            each in its directory, all with a common one; None where they were stopped.
        stop: asked with the number of a step, 0 between runs, whether to save and return.
    """

    run: Callable[[ConfigDict, Path, Callable[[int], bool]], Any]
    run_population: Callable[
        [Sequence[ConfigDict], Sequence[Path], Path, Callable[[int], bool]], Any
    ]
    stop: Callable[[int], bool]


class _Outcome(enum.Enum):
    DONE = enum.auto()
    FAILED = enum.auto()
    BUSY = enum.auto()
    STOPPED = enum.auto()


def carry_out(study: Study, units: Sequence[Sequence[Run]], trainer: Trainer) -> bool:
    """Runs units of cells and the pre-trainings they need; what is finished is not repeated.

    A unit is what is trained as one program: cells, or a single pre-training.

    A run that fails is recorded and not tried again by this call. What another process is busy
    with is left until the rest is done.

    Returns:
        Whether it got to the end; False where it was stopped.
    """
    failed: set[str] = set()
    total = _count(study, units)
    waiting = list(units)
    while waiting:
        busy: list[Sequence[Run]] = []
        for unit in waiting:
            outcome = (
                _Outcome.STOPPED
                if trainer.stop(0)
                else _advance(study, unit, trainer, total, failed)
            )
            if outcome is _Outcome.STOPPED:
                return False
            if outcome is _Outcome.BUSY:
                busy.append(unit)
        if len(busy) == len(waiting):
            with giving_up_at_once():
                time.sleep(_POLL_SECONDS)
        waiting = busy
    return True


def _count(study: Study, units: Sequence[Sequence[Run]]) -> Total:
    """Returns all runs that are not finished, with what finished ones tell of their time."""
    runs = [run for unit in units for run in unit]
    runs = [*pretrainings([run for run in runs if isinstance(run, Cell)]), *runs]
    work = {run.id: _work(study, run) for run in runs}
    results = {run.id: state_of(study, run).result for run in runs}
    total = Total({id: each for id, each in work.items() if not results[id]})
    for id, result in results.items():
        if "seconds" in result and work[id].amount:
            seconds = result["seconds"] - result.get("compiling_seconds", 0.0)
            total.measure(work[id], max(seconds, 0.0))
    return total


def _work(study: Study, run: Run) -> Work:
    """Returns the work of a run, in crystals to train on."""
    try:
        steps, batch_size = run_length(study, run)
    except UserError:  # it fails when its turn comes, and says why
        return Work(0.0)
    return Work(float(steps * batch_size), (run.table, batch_size))


def _advance(
    study: Study, unit: Sequence[Run], trainer: Trainer, total: Total, failed: set[str]
) -> _Outcome:
    """Runs a unit as far as it goes now."""
    if all(state_of(study, run).status == "done" for run in unit):
        return _Outcome.DONE
    source = unit[0].pretraining if isinstance(unit[0], Cell) else None
    if source is not None:
        outcome = _train(study, [source], trainer, total, failed)
        if outcome is _Outcome.FAILED:
            reason = f"{source.id}, which it starts from, failed: {state_of(study, source).reason}"
            _record(study, unit, failed, reason)
        if outcome is not _Outcome.DONE:
            return outcome
    return _train(study, unit, trainer, total, failed)


def _train(
    study: Study, runs: Sequence[Run], trainer: Trainer, total: Total, failed: set[str]
) -> _Outcome:
    """Runs what is not finished of some runs, as a population if they are several."""
    with ExitStack() as claims:
        for run in runs:
            if not claims.enter_context(claimed(study.workdir / "claims" / run.id)):
                return _Outcome.BUSY
        todo = [run for run in runs if state_of(study, run).status != "done"]
        total.leave_out([run.id for run in runs if run not in todo])
        if not todo:
            return _Outcome.DONE
        if any(run.id in failed for run in todo):
            return _Outcome.FAILED
        try:
            with total.training([run.id for run in todo]) as results:
                results += _start(study, todo, trainer)
        except Exception as error:  # whatever it is, the other cells can do without this one
            _record_each(study, todo, failed, error)
            return _Outcome.FAILED
        if not results:
            return _Outcome.STOPPED
        for run in todo:
            (study.workdir / run.directory / ERROR).unlink(missing_ok=True)
    return _Outcome.DONE


def _record_each(study: Study, runs: Sequence[Run], failed: set[str], error: Exception) -> None:
    """Leaves the reasons of a failure; of a population some members may be done all the same."""
    reasons = error.reasons if isinstance(error, MembersFailed) else {}
    for run in runs:
        place = study.workdir / run.directory
        if state_of(study, run).status == "done":
            (place / ERROR).unlink(missing_ok=True)
        else:
            _record(study, [run], failed, reasons.get(place, _reason(error)))


def _start(study: Study, runs: Sequence[Run], trainer: Trainer) -> Sequence[dict[str, Any]]:
    """Returns the results of runs, none where they were stopped."""
    configs = [run_config(study, run) for run in runs]
    places = [study.workdir / run.directory for run in runs]
    if len(runs) == 1:
        result = trainer.run(configs[0], places[0], trainer.stop)
        return [] if result is None else [result]
    common = study.workdir / "populations" / _name(runs)
    return trainer.run_population(configs, places, common, trainer.stop) or []


def _name(runs: Sequence[Run]) -> str:
    """Returns what a population is called: by all its runs, as a study may grow between two."""
    ids = hashlib.sha256("\n".join(run.id for run in runs).encode()).hexdigest()
    return f"{runs[0].id}-x{len(runs)}-{ids[:12]}"


def _record(study: Study, runs: Sequence[Run], failed: set[str], reason: str) -> None:
    """Leaves the reason of a failure in the directories of its runs."""
    for run in runs:
        place = study.workdir / run.directory
        place.mkdir(parents=True, exist_ok=True)
        (place / ERROR).write_text(reason + "\n", encoding="utf-8")
        failed.add(run.id)
        _logger.warning("%s failed: %s", run.id, reason.partition("\n")[0])


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return "".join([f"{type(error).__name__}: {error}\n\n", *traceback.format_exception(error)])
