"""From a cell or a pre-training to the config of its run and the place where it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import settle, settle_training, steps_per_epoch
from jaxmat.experiments.study.cells import Cell, Pretraining, make_grid
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.samples import (
    IdLists,
    Samples,
    find_tables,
    finetuning_split,
    pretraining_split,
    read_samples,
)
from jaxmat.experiments.workdir import open_workdir, read_result, write_json

ERROR = "error.txt"
# Parts of a config that may change between two starts: what is done, not how.
_FREE = ("study", "job")

Run = Cell | Pretraining


class Study(NamedTuple):
    """A study in its working directory.

    Attributes:
        config: the whole config.
        workdir: with tables/, splits/, pretrain/ and cells/.
        samples: of all tables that a cell uses, by key.
        cells: the whole grid.
    """

    config: ConfigDict
    workdir: Path
    samples: dict[str, Samples]
    cells: list[Cell]


class Length(NamedTuple):
    """How much work a run is."""

    steps: int
    batch_size: int


def open_study(config: ConfigDict, workdir: Path) -> Study:
    """Makes the directory of a study or goes on in it, with other cells perhaps.

    Raises:
        UserError: it holds a study with other settings, or a table cannot be used.
    """
    with claimed(workdir / "claims" / "study", wait=True):
        fixed = {name: value for name, value in config.to_dict().items() if name not in _FREE}
        open_workdir(workdir, ConfigDict(fixed))
        study = read_study(config, workdir)
        for key, samples in study.samples.items():
            file = _samples_file(workdir, key)
            file.parent.mkdir(exist_ok=True)
            content = samples._asdict()
            del content["table"]
            write_json(file, content)
    return study


def read_study(config: ConfigDict, workdir: Path) -> Study:
    """Reads what there is of a study and the tables it needs; writes nothing.

    Raises:
        UserError: a table or an axis of the grid cannot be used.
    """
    tables = find_tables(config.data.tables)
    cells = make_grid(config.study, tables)
    used = {key for cell in cells for key in (cell.source, cell.target) if key}
    samples = {}
    for key in sorted(used):
        file = _samples_file(workdir, key)
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            samples[key] = Samples(**content | {"table": tables[key]})
        else:
            samples[key] = read_samples(tables[key], config.data)
    return Study(config, workdir, samples, cells)


def directory(run: Run) -> Path:
    """Returns where a run takes place, relative to the study."""
    return Path("pretrain" if isinstance(run, Pretraining) else "cells") / run.id


def status(study: Study, run: Run) -> str:
    """Returns "done", "failed" or "missing"."""
    place = study.workdir / directory(run)
    if read_result(place) is not None:
        return "done"
    return "failed" if (place / ERROR).exists() else "missing"


def split_of(study: Study, run: Run) -> IdLists:
    """Returns the crystals that a run trains on, validates on and is tested on.

    Raises:
        UserError: the table has too few crystals, or lacks some that are listed.
    """
    samples = study.samples[run.table]
    if isinstance(run, Pretraining):
        return pretraining_split(samples, run.size, run.seed)
    return finetuning_split(samples, run.target_size, run.trial)


def run_length(study: Study, run: Run) -> Length:
    """Returns the number of steps of a run and their size; see `split_of`."""
    split = split_of(study, run)
    training = _training(study, run, split)
    steps = training["epochs"] * steps_per_epoch(training, len(split["train"]))
    return Length(steps, training["batch_size"])


def run_config(study: Study, run: Run) -> ConfigDict:
    """Returns the config of a run, and writes the split file that it names.

    Raises:
        UserError: see `split_of`.
    """
    samples, split = study.samples[run.table], split_of(study, run)
    split_file = study.workdir / "splits" / f"{run.id}.json"
    split_file.parent.mkdir(exist_ok=True)
    write_json(split_file, split)

    if isinstance(run, Cell) and run.pretraining:
        config = defaults.finetune()
        config.init_from = str(study.workdir / directory(run.pretraining))
        config.strategy = run.strategy
    else:
        config = defaults.scratch()
        config.experiment = "pretrain" if isinstance(run, Pretraining) else "scratch"
        config.graph.update(settle(study.config, "graph"))
        config.network = study.config.network.copy_and_resolve_references()
    config.seed = run.seed
    fields = settle(study.config, "data", heavy_tail=samples.heavy_tail)
    del fields["tables"]
    config.data.update(fields)
    table = samples.table
    config.data.update(path=table.path, target=table.target, unit=table.unit)
    config.data.update(split=str(split_file), id_column="")
    config.training.update(_training(study, run, split))
    return config


def _training(study: Study, run: Run, split: IdLists) -> dict[str, Any]:
    section = "pretraining" if isinstance(run, Pretraining) else "training"
    counts = {"n_train": len(split["train"]), "n_validation": len(split["validation"])}
    fields = settle_training(study.config, section, **counts)
    return fields if isinstance(run, Pretraining) else fields | {"learning_rate": run.learning_rate}


def _samples_file(workdir: Path, key: str) -> Path:
    return workdir / "tables" / f"{key}.json"
