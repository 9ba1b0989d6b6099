"""The training loop: steps, evaluations, checkpoints and a word on progress."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax

from jaxmat.batch import CrystalBatch
from jaxmat.errors import UserError
from jaxmat.training.checkpoints import Checkpoints
from jaxmat.training.progress import Progress
from jaxmat.training.state import TrainState, averaged_variables
from jaxmat.training.step import TrainStep

Record = dict[str, Any]


def fit(
    state: TrainState,
    train_step: TrainStep,
    batches_from: Callable[[int], Iterator[CrystalBatch]],
    *,
    total_steps: int,
    evaluate: Callable[[dict[str, Any]], Record],
    evaluate_every: int,
    monitor: str,
    checkpoints: Checkpoints,
    save_every: int,
    log: Callable[[Record], None],
    stop: Callable[[int], bool] = lambda step: False,
) -> TrainState:
    """Trains from the state's step to the last, or until it is told to stop.

    A run that was stopped and goes on from its last checkpoint ends, on a CPU bit for bit, as the
    run that was never stopped.

    Args:
        state: where to start; a compiled step that donates it makes it unusable.
        train_step: compiled training step.
        batches_from: gives the batches from a step on, without end. The batch of a step may
            depend on nothing but that step (and a seed).
        total_steps: number of the last step.
        evaluate: from {"params", "batch_stats"} to metrics of the validation set.
        evaluate_every: steps between evaluations; there is one after the last step as well.
        monitor: the metric that decides which variables are best; lower is better.
        checkpoints: where last and best go.
        save_every: steps between savings of the state; it is saved at the end as well.
        log: takes a record of step, training loss and metrics at each evaluation.
        stop: asked after every step, with its number, whether to save and return.

    Returns:
        The state after the last step that was done.

    Raises:
        UserError: if the loss or its gradient is not finite. Such a state is never saved.
    """
    step = int(state.step)
    best = checkpoints.best_metric()
    batches = batches_from(step)
    pending: list[dict[str, jax.Array]] = []  # metrics that are perhaps not computed yet
    done: list[dict[str, float]] = []  # metrics of all steps since the last record
    finished = step >= total_steps
    with closing(Progress(step, total_steps)) as progress:
        while not finished:
            state, metrics = train_step(state, next(batches))
            step += 1
            pending.append(metrics)
            finished = step == total_steps or stop(step)
            evaluates = step % evaluate_every == 0 or step == total_steps
            saves = step % save_every == 0 or finished
            if not (evaluates or saves or progress.is_due()):
                continue  # fetching a metric waits for its step, so it is not done at each
            fetched = _fetch(pending, step)
            pending.clear()
            done += fetched
            progress.update(step, fetched)
            if evaluates:
                variables = averaged_variables(state)
                scores = evaluate(variables)
                log({"step": step, **_training_means(done), **scores})
                done.clear()
                if scores[monitor] < best:
                    best = float(scores[monitor])
                    checkpoints.save_best(variables, step, best)
            if saves:
                checkpoints.save_last(state)
    return state


def json_lines(path: Path) -> Callable[[Record], None]:
    """Makes a log for `fit` that appends each record to a file, one JSON object a line.

    Args:
        path: the file. A resumed run repeats the records after its checkpoint: of two records
            with the same step the later one counts.

    Returns:
        The function that writes a record; numbers that are not finite become null.
    """

    def write(record: Record) -> None:
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")

    return write


def _fetch(pending: list[dict[str, jax.Array]], step: int) -> list[dict[str, float]]:
    """Brings the metrics of the last steps, up to `step`, from the device and checks them."""
    fetched = [
        {key: float(value) for key, value in metrics.items()} for metrics in jax.device_get(pending)
    ]
    for number, metrics in enumerate(fetched, start=step - len(fetched) + 1):
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            raise UserError(
                f"training broke down at step {number}: loss {metrics['loss']}, norm of its "
                f"gradient {metrics['grad_norm']}. Lower the learning rate, or look for extreme "
                "targets; the checkpoints saved before that step are kept"
            )
    return fetched


def _training_means(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Means over steps of what a record says about the training itself."""
    return {
        "train_loss": sum(each["loss"] for each in metrics) / len(metrics),
        "grad_norm": sum(each["grad_norm"] for each in metrics) / len(metrics),
    }
