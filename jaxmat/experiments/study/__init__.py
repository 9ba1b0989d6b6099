"""A study: a grid of pre-trainings, fine-tunings and trainings from scratch, and its report."""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmat.bundles.bundle import FOLDER
from jaxmat.errors import UserError, listed
from jaxmat.experiments.protocols import get_protocol, settle, settle_network
from jaxmat.experiments.study.cells import Cell, pretrainings, share_of, units
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.plan import describe
from jaxmat.experiments.study.rows import gather
from jaxmat.experiments.study.runner import Trainer, carry_out
from jaxmat.experiments.study.runs import Study, open_study, read_study, state_of
from jaxmat.experiments.workdir import LOG
from jaxmat.report.rows import write_rows
from jaxmat.report.settings import command_line
from jaxmat.report.study.report import write_report
from jaxmat.report.study.results import CellResult
from jaxmat.runtime.logs import logged_to

_logger = logging.getLogger(__name__)

_ACTIONS = ("run", "pretrain", "dry_run", "report")


def run_study(config: ConfigDict, workdir: Path, trainer: Trainer) -> dict[str, Any] | None:
    """Does a share of a study, or goes on with it, and reports on all that is there.

    Several processes can work on one study in one directory. The grid may grow from one start to
    the next; settings of the runs may not change.

    Args:
        config: see `jaxmat.experiments.defaults.study`.
        workdir: of the study; gets cells/ID, pretrain/ID, results.csv, the report and a log.
        trainer: how a run is done.

    Returns:
        The number of cells of each status; None where it was stopped.

    Raises:
        UserError: a config or table that cannot be used, or cells of the share that failed.
    """
    job = config.job
    get_protocol(config.protocol)
    if job.action not in _ACTIONS:
        raise UserError(f"config.job.action is {job.action!r}; use one of {', '.join(_ACTIONS)}.")
    if job.action == "dry_run":
        opened = read_study(config, workdir)
        _tell_remarks(opened)
        _logger.info("%s", describe(opened, share_of(opened.cells, job.cells)))
        return _counts(gather(opened))
    opened = open_study(config, workdir)
    share = share_of(opened.cells, job.cells)
    with logged_to(workdir / _log_name(job.cells)):
        _tell_remarks(opened)
        return _work(opened, share, trainer)


def _tell_remarks(study: Study) -> None:
    for remark in study.remarks:
        _logger.warning("%s.", remark)


def _log_name(share: str) -> str:
    """Returns the name of the log of a share i/n: processes on other machines have others."""
    return LOG if share == "1/1" else f"log-{share.replace('/', '-of-')}.txt"


def _work(opened: Study, share: Sequence[Cell], trainer: Trainer) -> dict[str, Any] | None:
    """Does what is asked for with a share of an open study; see `run_study`."""
    job = opened.config.job
    if job.action == "pretrain":
        return _pretrain(opened, share, trainer)
    if job.action == "run" and not carry_out(opened, units(share, job.population), trainer):
        return None
    rows = _report(opened)
    if job.action == "run":
        _tell_failures(rows, share, opened.workdir)
    return _counts(rows)


def _pretrain(study: Study, share: Sequence[Cell], trainer: Trainer) -> dict[str, Any] | None:
    """Does the pre-trainings of a share alone; returns the number of each status."""
    runs = pretrainings(share)
    if not runs:
        raise UserError("The study has no pre-trainings: config.study.sources is empty.")
    if not carry_out(study, [[run] for run in runs], trainer):
        return None
    states = {run: state_of(study, run) for run in runs}
    if failed := [f"{r.id}: {s.reason}" for r, s in states.items() if s.status == "failed"]:
        raise UserError(
            f"{len(failed)} of {len(runs)} pre-trainings failed; the same command tries them "
            f"again, error.txt in {study.workdir}/pretrain/ID has the whole reason:\n"
            + listed(failed)
        )
    for run in runs:
        _logger.info("%s", study.workdir / run.directory / FOLDER)
    return dict(Counter(state.status for state in states.values()))


def _tell_failures(rows: Sequence[CellResult], share: Sequence[Cell], workdir: Path) -> None:
    """Raises UserError where cells of a share have failed."""
    mine = {cell.id for cell in share}
    failed = [row for row in rows if row.status == "failed" and row.cell in mine]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(share)} cells failed; the same command tries them again, "
            f"error.txt in {workdir}/cells/ID has the whole reason:\n"
            + listed([f"{row.cell}: {row.reason}" for row in failed])
        )


def _report(study: Study) -> list[CellResult]:
    """Writes results.csv and, where a cell is done, the report."""
    with claimed(study.workdir / "claims" / "report", wait=True):
        rows = gather(study)
        write_rows(study.workdir / "results.csv", CellResult._fields, rows)
        counts = ", ".join(f"{n} {status}" for status, n in _counts(rows).items())
        _logger.info("%s: %s", study.workdir / "results.csv", counts)
        if any(row.status == "done" for row in rows):
            published = study.config.job.published
            page = write_report(
                rows,
                study.workdir,
                title=study.config.study.title,
                settings=_settings(study),
                published=Path(published) if published else None,
                command=command_line(sys.argv),
            )
            _logger.info("%s", page)
    return rows


def _settings(study: Study) -> dict[str, Any]:
    """Returns what the report says of how the runs were done."""
    settings = {name: value for name, value in study.config.to_dict().items() if name != "job"}
    settings |= {section: settle(study.config, section) for section in ("graph", "data")}
    settings["network"] = settle_network(study.config).to_dict()
    axes = study.config.study
    for section, sizes in (("training", axes.target_sizes), ("pretraining", axes.source_sizes)):
        settings[section] = _common_first(
            {
                f"{size or 'all'} labels": settle(study.config, section, labels=size or math.inf)
                for size in sizes
            }
        )
    settings["data"]["log"] = [
        key
        for key, samples in study.samples.items()
        if settle(study.config, "data", heavy_tail=samples.heavy_tail)["log"]
    ]
    return settings


def _common_first(by_size: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the fields that are the same for all sizes, and the others of each size."""
    first = next(iter(by_size.values()))
    common = {
        name: value
        for name, value in first.items()
        if all(name in fields and fields[name] == value for fields in by_size.values())
    }
    others = {
        size: {name: value for name, value in fields.items() if name not in common}
        for size, fields in by_size.items()
    }
    return common | {size: fields for size, fields in others.items() if fields}


def _counts(rows: list[CellResult]) -> dict[str, int]:
    return dict(Counter(row.status for row in rows))
