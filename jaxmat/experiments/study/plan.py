"""What a study would do, and how long that would take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from jaxmat.errors import UserError, listed
from jaxmat.experiments.study.cells import Cell, Run, pretrainings
from jaxmat.experiments.study.runs import Study, run_length, state_of
from jaxmat.report.tables import format_table


def describe(study: Study, cells: Sequence[Cell]) -> str:
    """Returns the pre-trainings and cells of a share with steps and minutes, and their sum.

    Args:
        study: the study.
        cells: the share.
    """
    runs: list[Run] = [*pretrainings(cells), *cells]
    stated = study.config.job.structures_per_second
    rates = measured_rates(study)
    rows, impossible = [], []
    seconds = {"missing": 0.0, "failed": 0.0, "done": 0.0}
    for run in runs:
        try:
            steps, batch_size = run_length(study, run)
        except UserError as problem:
            impossible.append(f"{run.id}: {problem}")
            continue
        status = state_of(study, run).status
        rate = rates.get((run.table, batch_size)) or rates.get(None) or stated
        seconds[status] += (time := steps * batch_size / rate)
        rows.append(
            {
                "run": run.id,
                "status": status,
                "steps": str(steps),
                "batch": str(batch_size),
                "minutes": f"{time / 60:.1f}",
            }
        )
    basis = "at the rates of finished runs, with compilation and tests"
    if not rates:
        basis = f"at {stated:g} structures a second (config.job.structures_per_second)"
    left = (seconds["missing"] + seconds["failed"]) / 3600
    text = (
        f"{format_table(rows)}\n\n{len(cells)} cells of {len(study.cells)} and "
        f"{len(runs) - len(cells)} pre-trainings; left to do: {left:.2f} hours, one run after the "
        f"other, {basis}."
    )
    return text + (f"\nThese cannot be done:\n{listed(impossible)}" if impossible else "")


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
            for key in (None, (run.table, batch_size)):
                rates[key].append(steps * batch_size / seconds)
    return {key: float(np.median(values)) for key, values in rates.items()}
