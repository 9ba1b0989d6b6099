"""A study in its work directory: its tables, how far its runs are, and the config of each."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.inputs import changed_since, keep_inputs, refuse_changed, table_file
from jaxmat.experiments.protocols import (
    settle,
    settle_network,
    settle_training,
    steps_per_epoch,
)
from jaxmat.experiments.study.cells import (
    ALL,
    OTHERS,
    Cell,
    Pretraining,
    Run,
    make_grid,
    pretrainings,
)
from jaxmat.experiments.study.claims import claimed
from jaxmat.experiments.study.multi_property import (
    UNION,
    UnionTable,
    digests_of_tests,
    find_union,
    read_union,
    refuse_begun,
)
from jaxmat.experiments.study.samples import IdLists, Samples, finetuning_split, read_samples
from jaxmat.experiments.study.tables import TableFile, find_tables
from jaxmat.experiments.workdir import has_work, open_workdir, read_result, write_json
from jaxmat.models.heads import is_fitted
from jaxmat.models.network import make_trunk
from jaxmat.runtime.files import read_json
from jaxmat.transfer.strategies import get_strategy, require_groups

ERROR = "error.txt"

_logger = logging.getLogger(__name__)
# Parts of a config that may change between two starts: what is done, not how.
_FREE = ("study", "job")
# How the files of a table are called among the inputs of a study.
_TABLE, _LISTS = "the table ", "the lists of "
_OF_SPLITS = "splits/{}.json"
_WAY_OUT = "choose another --workdir, or bring that file back to go on with it"


class Study(NamedTuple):
    """A study in its work directory.

    Attributes:
        config: the whole config.
        workdir: with tables/, splits/, pretrain/ and cells/.
        cells: the whole grid.
        samples: of all tables that a cell uses, by key.
        union: the table of all properties, where a cell uses it.
        remarks: what is to be said before it begins.
    """

    config: ConfigDict
    workdir: Path
    cells: list[Cell]
    samples: dict[str, Samples]
    union: UnionTable | None
    remarks: Sequence[str] = ()

    def table(self, key: str) -> Samples | UnionTable:
        """Returns the table with a key, ALL for that of all properties."""
        return self.union if key == ALL and self.union else self.samples[key]


class State(NamedTuple):
    """How far a run is.

    Attributes:
        status: "done", "failed" or "missing".
        result: its result, {} where it is not done.
        reason: first line of why it failed, "" where it has not.
    """

    status: str
    result: dict[str, Any]
    reason: str


class Length(NamedTuple):
    """How much work a run is; a fit in closed form takes no step."""

    steps: int
    batch_size: int


def open_study(config: ConfigDict, workdir: Path) -> Study:
    """Makes the directory of a study or goes on in it, with other cells perhaps.

    Raises:
        UserError: it holds a study with other settings, tables or lists of crystals, or a table
            cannot be used.
    """
    with claimed(workdir / "claims" / "study", wait=True):
        fixed = {name: value for name, value in config.to_dict().items() if name not in _FREE}
        open_workdir(workdir, ConfigDict(fixed))
        study = read_study(config, workdir)
        _refuse_runs_on_others(study)
        tables = [of.table for of in study.samples.values()]
        keep_inputs(workdir, _inputs(tables, config, several=study.union is not None))
        (workdir / "tables").mkdir(exist_ok=True)
        # What follows from all tables comes first: where they are kept, so is what they gave.
        for key in (*([ALL] if study.union else []), *study.samples):
            _, *kept = study.table(key)._asdict().items()  # the first is found anew each time
            write_json(_kept_file(workdir, key), dict(kept))
    return study


def read_study(config: ConfigDict, workdir: Path) -> Study:
    """Reads what there is of a study and the tables it needs.

    It writes nothing but the table of several properties, where one is needed and there is none.

    Raises:
        UserError: a table or an axis of the grid cannot be used.
    """
    files = find_tables(config.data.tables)
    cells = make_grid(config.study, files)
    groups = make_trunk(settle_network(config).trunk).groups()
    for strategy in {cell.strategy for cell in cells if cell.strategy}:
        require_groups(strategy, groups)
    several = any(cell.source in (ALL, OTHERS) for cell in cells)
    used = {key for cell in cells for key in (cell.source, cell.target)} & files.keys()
    # No test crystal of any table gets into a table of all, whatever else the grid has.
    tables = [files[key] for key in sorted(files if several else used)]
    changed = changed_since(workdir, inputs := _inputs(tables, config, several))
    refuse_changed(workdir, {n: inputs[n] for n in changed if n.startswith(_TABLE)})
    samples, union = {}, None
    for table in tables:
        kept = _kept_samples(workdir, table)
        is_same = not {_TABLE + table.key, _LISTS + table.key}.intersection(changed)
        samples[table.key] = kept if kept and is_same else read_samples(table, config.data)
        _refuse_other_samples(workdir, kept, samples[table.key])
    if several:
        anew = bool(changed) and not has_work(workdir)
        union = _open_union(files, config.data, workdir, samples, anew)
    merged = _merged(cells, samples, workdir)
    remarks = [*_too_large(cells, samples), *_miscounted(cells, samples)]
    return Study(config, workdir, merged, samples, union, remarks)


def _inputs(tables: Sequence[TableFile], config: ConfigDict, several: bool) -> dict[str, str]:
    """Returns the files that a study depends on, by name; none of tables of the package.

    Args:
        tables: that it uses.
        config: of it.
        several: whether it uses the table of several properties.
    """
    folder = Path(config.data.tables)
    files = {_TABLE + of.key: table_file(of.path) for of in tables}
    files |= {_LISTS + of.key: str(folder / "splits" / f"{of.key}.json") for of in tables}
    if several:
        files[_TABLE + ALL] = str(folder / UNION)
    return {name: file for name, file in files.items() if Path(file).is_file()}


def _refuse_other_samples(workdir: Path, kept: Samples | None, now: Samples) -> None:
    """Refuses to go on where other crystals would be tested than before.

    Raises:
        UserError: there is work that was tested on those before.
    """
    if kept not in (None, now) and has_work(workdir):
        raise UserError(
            f"{workdir} holds a study with other test crystals, or other labels, of "
            f"{now.table.key} than {_OF_SPLITS.format(now.table.key)} gives now; {_WAY_OUT}."
        )


def _refuse_runs_on_others(study: Study) -> None:
    """Refuses to go on with runs that would begin now with other crystals or labels.

    Lists that no run has used may be others than they were.

    Raises:
        UserError: there are such runs; the message names them.
    """
    workdir = study.workdir
    if not has_work(workdir):
        return
    runs: list[Run] = [*pretrainings(study.cells), *study.cells]
    others = [r for r in runs if _sees_others(study, r) and has_work(workdir / r.directory)]
    if others:
        files = ", ".join(dict.fromkeys(_OF_SPLITS.format(run.table) for run in others))
        raise UserError(
            f"{workdir} holds runs on other crystals, or another column of labels, than {files} "
            f"gives now; {_WAY_OUT}:\n{listed([run.id for run in others])}"
        )


def _sees_others(study: Study, run: Run) -> bool:
    """Whether a run would begin now with other crystals or labels than it did."""
    file = study.workdir / "splits" / f"{run.id}.json"
    try:
        before = read_json(file) if file.exists() else None
    except UserError:  # damaged: nothing to compare with
        return False
    if before is None:
        return False
    try:
        data, now = study.table(run.table).seen_by(run, study.config)
    except UserError:
        return True
    column = data.get("target")
    return now != before or state_of(study, run).result.get("property", column) != column


def _merged(cells: Sequence[Cell], samples: Mapping[str, Samples], workdir: Path) -> list[Cell]:
    """Returns cells without those whose pre-training is one of another size once more.

    Of equal pre-trainings one that has begun stays, else the first.
    """
    alike: dict[Cell, list[Cell]] = defaultdict(list)
    for cell in cells:
        everything = cell.source in samples and samples[cell.source].takes_all(cell.source_size)
        alike[cell._replace(source_size=0) if everything else cell].append(cell)

    def is_new(cell: Cell) -> bool:
        source = cell.pretraining
        return source is None or not (workdir / source.directory).exists()

    return [min(group, key=is_new) for group in alike.values()]


def _too_large(cells: Sequence[Cell], samples: Mapping[str, Samples]) -> list[str]:
    """Returns what is said of sizes of pre-trainings that tables do not have."""
    asked = dict.fromkeys((cell.source, cell.source_size) for cell in cells if cell.source_size)
    return [
        f"config.study.source_sizes: {size} labels of {key} are asked for, but beside its test "
        f"part it has {samples[key].size}: all of these are pre-trained on, once for all such sizes"
        for key, size in asked
        if key in samples and size > samples[key].size and samples[key].takes_all(size)
    ]


def _miscounted(cells: Sequence[Cell], samples: Mapping[str, Samples]) -> list[str]:
    """Returns what is said of lists that do not have as many labels as their name says."""
    remarks = []
    for key, size, trial in dict.fromkeys((c.target, c.target_size, c.trial) for c in cells):
        try:
            split = finetuning_split(samples[key], size, trial)
        except UserError:  # its cells fail, and say why
            continue
        labels = len(split["train"]) + len(split["validation"])
        if labels != size:
            remarks.append(
                f"table {key}: by its splits file (trials, n_train_val) the cells of {size} labels "
                f"of trial {trial} have {labels}; tables and figures say {size} all the same"
            )
    return remarks


def _open_union(
    files: Mapping[str, TableFile],
    data: ConfigDict,
    workdir: Path,
    samples: Mapping[str, Samples],
    anew: bool,
) -> UnionTable:
    """Returns the table of several properties, made anew where it was of other tables or tests.

    Raises:
        UserError: it was, and pre-trainings on it have begun.
    """
    kept, now = _read_kept(workdir, ALL), digests_of_tests(samples)
    if anew or kept is None:
        return read_union(find_union(files, data, workdir, anew), samples, data)
    # Earlier versions did not write which tests they were; the tables that they knew are kept.
    known = all(_kept_file(workdir, key).exists() for key in samples)
    before = kept.setdefault("tested", now if known else {})
    if before == now:
        return UnionTable(samples, **kept)
    refuse_begun(workdir, before, now)
    return read_union(find_union(files, data, workdir, anew=True), samples, data)


def state_of(study: Study, run: Run) -> State:
    """Returns how far a run is."""
    place = study.workdir / run.directory
    if (result := read_result(place)) is not None:
        return State("done", result, "")
    if not (place / ERROR).exists():
        return State("missing", {}, "")
    return State("failed", {}, _first_line(place / ERROR))


def _first_line(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def run_length(study: Study, run: Run) -> Length:
    """Returns the number of steps of a run and their size.

    Raises:
        UserError: the table has too few crystals, or lacks some that are listed.
    """
    split = study.table(run.table).seen_by(run, study.config).split
    training = _training(study.config, run, split)
    steps = training["epochs"] * steps_per_epoch(training, len(split["train"]))
    head = get_strategy(run.strategy).head if isinstance(run, Cell) and run.strategy else None
    return Length(0 if head and is_fitted(head) else steps, training["batch_size"])


def run_config(study: Study, run: Run) -> ConfigDict:
    """Returns the config of a run, and writes the split file that it names.

    Raises:
        UserError: see `run_length`.
    """
    split = study.table(run.table).seen_by(run, study.config).split
    split_file = study.workdir / "splits" / f"{run.id}.json"
    split_file.parent.mkdir(exist_ok=True)
    write_json(split_file, split)
    config = unsplit_config(study, run)
    config.data.split = str(split_file)
    return config


def unsplit_config(study: Study, run: Run) -> ConfigDict:
    """Returns the config of a run, but for the split.

    Raises:
        UserError: see `run_length`.
    """
    data, split = study.table(run.table).seen_by(run, study.config)
    if isinstance(run, Cell) and run.pretraining:
        config = defaults.finetune()
        config.start_from = str(study.workdir / run.pretraining.directory)
        config.strategy = run.strategy
    else:
        config = defaults.scratch()
        config.experiment = "pretrain" if isinstance(run, Pretraining) else "scratch"
        config.graph.update(settle(study.config, "graph"))
        config.network = settle_network(study.config)
    config.seed = run.seed
    config.data = data
    config.training.update(_training(study.config, run, split))
    return config


def _training(config: ConfigDict, run: Run, split: IdLists) -> dict[str, Any]:
    section = "pretraining" if isinstance(run, Pretraining) else "training"
    counts = {"n_train": len(split["train"]), "n_validation": len(split["validation"])}
    fields = settle_training(config, section, **counts)
    return fields if isinstance(run, Pretraining) else fields | {"learning_rate": run.learning_rate}


def _kept_file(workdir: Path, key: str) -> Path:
    return workdir / "tables" / f"{key}.json"


def _kept_samples(workdir: Path, table: TableFile) -> Samples | None:
    """Returns what a study keeps of the samples of a table, None where that is nothing."""
    kept = _read_kept(workdir, table.key)
    return None if kept is None else Samples(table, **kept)


def _read_kept(workdir: Path, key: str) -> dict[str, Any] | None:
    """Returns what a study keeps of a table from its first start on, None before it.

    What is damaged is made again of the same files.
    """
    file, kind = _kept_file(workdir, key), UnionTable if key == ALL else Samples
    if not file.exists():
        return None
    try:
        kept = read_json(file, most=file.stat().st_size)
    except UserError as error:
        _logger.warning("%s; it is made again", error)
        return None
    if set(kept) <= set(kind._fields[1:]) and set(kept) >= _needed(kind):
        return kept
    _logger.warning("%s holds something else; it is made again", file)
    return None


def _needed(kind: type[Samples] | type[UnionTable]) -> set[str]:
    return set(kind._fields[1:]) - set(kind._field_defaults)
