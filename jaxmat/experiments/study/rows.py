"""The results of a study: one row a cell."""

from __future__ import annotations

import math

from jaxmat.experiments.study.cells import Cell
from jaxmat.experiments.study.runs import Study, state_of
from jaxmat.report.study.results import CellResult

_NUMBERS = (
    *("test_mae", "test_rmse", "test_r2", "test_mae_scaled", "test_r2_scaled"),
    *("train_mae", "train_mae_scaled", "constant_test_mae", "gaussian_process_test_mae", "seconds"),
    "validation_mae",
)


def gather(study: Study) -> list[CellResult]:
    """Returns the rows of all cells of a study, with what is known of them by now."""
    return [_row(study, cell) for cell in study.cells]


def _row(study: Study, cell: Cell) -> CellResult:
    status, result, reason = state_of(study, cell)
    crystals = result.get("crystals", {})
    source_size = cell.source_size
    if cell.pretraining and not source_size:
        source_size = study.table(cell.pretraining.table).size
    return CellResult(
        cell=cell.id,
        kind="finetune" if cell.source else "scratch",
        source=cell.source,
        source_size=source_size or None,
        target=cell.target,
        target_size=cell.target_size,
        strategy=cell.strategy,
        protocol=study.config.protocol,
        learning_rate=cell.learning_rate,
        trial=cell.trial,
        status=status,
        property=result.get("property", ""),
        unit=study.samples[cell.target].table.unit,
        n_train=crystals.get("train"),
        n_validation=crystals.get("validation"),
        n_test=crystals.get("test"),
        **{name: _number(result.get(name)) for name in _NUMBERS},
        directory=cell.directory.as_posix(),
        seed=cell.seed,
        reason=reason,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
