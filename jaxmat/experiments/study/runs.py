"""From a cell or a pre-training to the config of its run and the place where it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import (
    settle,
    settle_network,
    settle_training,
    steps_per_epoch,
)
from jaxmat.experiments.study.cells import ALL, OTHERS, Cell, Pretraining, make_grid
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.multi_property import (
    UnionTable,
    find_union,
    read_union,
    union_config,
    union_split,
)
from jaxmat.experiments.study.samples import (
    IdLists,
    Samples,
    TableFile,
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
        union: the table of all properties, where a cell uses it.
    """

    config: ConfigDict
    workdir: Path
    samples: dict[str, Samples]
    cells: list[Cell]
    union: UnionTable | None


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
        if study.union:
            write_json(_samples_file(workdir, ALL), study.union._asdict())
    return study


def read_study(config: ConfigDict, workdir: Path) -> Study:
    """Reads what there is of a study and the tables it needs.

    It writes nothing but the table of several properties, where one is needed and there is none.

    Raises:
        UserError: a table or an axis of the grid cannot be used.
    """
    tables = find_tables(config.data.tables)
    cells = make_grid(config.study, tables)
    several = any(cell.source in (ALL, OTHERS) for cell in cells)
    used = {key for cell in cells for key in (cell.source, cell.target)} & tables.keys()
    samples = {}
    # No test crystal of any table gets into a table of all, whatever else the grid has.
    for key in sorted(tables if several else used):
        file = _samples_file(workdir, key)
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            samples[key] = Samples(**content | {"table": tables[key]})
        else:
            samples[key] = read_samples(tables[key], config.data)
    union = _read_union(config.data, workdir, tables, samples) if several else None
    return Study(config, workdir, samples, cells, union)


def _read_union(
    data: ConfigDict,
    workdir: Path,
    tables: dict[str, TableFile],
    samples: dict[str, Samples],
) -> UnionTable:
    file = _samples_file(workdir, ALL)
    if file.exists():
        return UnionTable(**json.loads(file.read_text(encoding="utf-8")))
    return read_union(find_union(tables, data, workdir), samples, data)


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
    if isinstance(run, Cell):
        return finetuning_split(study.samples[run.target], run.target_size, run.trial)
    if run.source == ALL:
        return union_split(_union(study), study.samples, run)[0]
    return pretraining_split(study.samples[run.source], run.size, run.seed)


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
    split = split_of(study, run)
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
        config.network = settle_network(study.config)
    config.seed = run.seed
    config.data = _data(study, run)
    config.data.split = str(split_file)
    config.training.update(_training(study, run, split))
    return config


def _data(study: Study, run: Run) -> ConfigDict:
    """Returns `data` of the config of a run, but for its split."""
    settled = {
        key: settle(study.config, "data", heavy_tail=samples.heavy_tail)
        for key, samples in study.samples.items()
    }
    if isinstance(run, Pretraining) and run.source == ALL:
        union, log = _union(study), {key: fields["log"] for key, fields in settled.items()}
        return union_config(union, study.samples, log, next(iter(settled.values())), run)
    table, fields = study.samples[run.table].table, settled[run.table]
    config = defaults.data(path=table.path, target=table.target, unit=table.unit)
    config.update({name: value for name, value in fields.items() if name in config})
    config.id_column = ""
    return config


def _union(study: Study) -> UnionTable:
    assert study.union is not None  # it is read where a cell needs it
    return study.union


def _training(study: Study, run: Run, split: IdLists) -> dict[str, Any]:
    section = "pretraining" if isinstance(run, Pretraining) else "training"
    counts = {"n_train": len(split["train"]), "n_validation": len(split["validation"])}
    fields = settle_training(study.config, section, **counts)
    return fields if isinstance(run, Pretraining) else fields | {"learning_rate": run.learning_rate}


def _samples_file(workdir: Path, key: str) -> Path:
    return workdir / "tables" / f"{key}.json"
