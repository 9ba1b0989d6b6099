"""What a study would do, and how long that would take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import settle, settle_network
from jaxmat.experiments.study.cells import Cell, Run, pretrainings
from jaxmat.experiments.study.cost import DEVICES, Device, StepCost, sample_step, time_step
from jaxmat.experiments.study.runs import Study, run_length, state_of, unsplit_config
from jaxmat.report.tables import format_table
from jaxmat.transfer.strategies import get_strategy


def describe(study: Study, cells: Sequence[Cell]) -> str:
    """Returns the pre-trainings and cells of a share with steps and minutes, and their sums.

    Minutes are those on the machine at hand: as the finished runs took, else as a step takes now.

    Args:
        study: the study.
        cells: the share.
    """
    runs: list[Run] = [*pretrainings(cells), *cells]
    rates = measured_rates(study)
    costs = _Costs(study)
    rows, impossible = [], []
    left, least = 0.0, dict.fromkeys(DEVICES, 0.0)
    for run in runs:
        try:
            steps, batch_size = run_length(study, run)
        except UserError as problem:
            impossible.append(f"{run.id}: {problem}")
            continue
        status = state_of(study, run).status
        rate = rates.get((run.table, batch_size)) or rates.get(None)
        seconds = 0.0
        if steps:
            seconds = steps * (batch_size / rate if rate else costs.seconds(run, batch_size))
        if status != "done" and steps:
            left += seconds
            for name, device in DEVICES.items():
                least[name] += steps * costs.least(run, batch_size, device)
        rows.append(
            {
                "run": run.id,
                "status": status,
                "steps": str(steps),
                "batch": str(batch_size),
                "minutes": f"{seconds / 60:.1f}",
            }
        )
    device = jax.devices()[0].device_kind
    basis = f"with one step timed now on this machine ({device}), without compilation and tests"
    if rates:
        basis = "at the rates of finished runs, with compilation and tests"
    bounds = ", ".join(f"{seconds / 3600:.2g} on one {name}" for name, seconds in least.items())
    text = (
        f"{format_table(rows)}\n\n{len(cells)} cells of {len(study.cells)} and "
        f"{len(runs) - len(cells)} pre-trainings; left to do: {left / 3600:.2f} hours, one run "
        f"after the other, {basis}.\nHours that accelerators need at least (a bound, untested): "
        f"{bounds}. Jobs with --config.job.cells=i/n share them."
    )
    return text + (f"\nThese cannot be done:\n{listed(impossible)}" if impossible else "")


class _Costs:
    """What steps of a study take, found once for each table and batch size; one step is timed."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._found: dict[tuple[str, int], StepCost] = {}
        self._seconds_per_operation = 0.0

    def least(self, run: Run, batch_size: int, device: Device) -> float:
        """Returns the seconds that a step of a run takes at least on a device."""
        strategy = run.strategy if isinstance(run, Cell) else ""
        together = self._study.config.job.population if isinstance(run, Cell) else 1
        frozen = bool(strategy and get_strategy(strategy).frozen)
        return self._cost(run, batch_size).least_seconds(device, frozen=frozen, together=together)

    def seconds(self, run: Run, batch_size: int) -> float:
        """Returns the seconds of a step here, where seconds are in proportion to operations."""
        return self._cost(run, batch_size, timed=True).operations * self._seconds_per_operation

    def _cost(self, run: Run, batch_size: int, timed: bool = False) -> StepCost:
        key = run.table, batch_size
        if key not in self._found or (timed and not self._seconds_per_operation):
            sample = sample_step(_config(self._study, run))
            self._found[key] = sample.cost
            if timed and not self._seconds_per_operation:
                self._seconds_per_operation = time_step(sample) / sample.cost.operations
        return self._found[key]


def _config(study: Study, run: Run) -> ConfigDict:
    """Returns what `sample_step` needs to know of a run."""
    graph = defaults.graph()
    graph.update(settle(study.config, "graph"))
    config = unsplit_config(study, run)
    parts = {"data": config.data, "training": config.training, "graph": graph}
    return ConfigDict({**parts, "network": settle_network(study.config)})


def measured_rates(study: Study) -> dict[tuple[str, int] | None, float]:
    """Returns structures trained on per second, medians of the runs that are finished.

    Returns:
        (table, batch size) → rate, and under None that of all; empty where nothing is finished.
    """
    rates: dict[tuple[str, int] | None, list[float]] = defaultdict(list)
    runs: list[Run] = [*pretrainings(study.cells), *study.cells]
    for run in runs:
        if seconds := state_of(study, run).result.get("seconds"):
            steps, batch_size = run_length(study, run)
            if not steps:
                continue
            for key in (None, (run.table, batch_size)):
                rates[key].append(steps * batch_size / seconds)
    return {key: float(np.median(values)) for key, values in rates.items()}
