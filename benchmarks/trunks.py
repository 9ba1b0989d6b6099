"""Compares trunks and element features on the paper's small sets, from random weights.

    python -m benchmarks.trunks --data=FOLDER --csv=FILE                     # the frozen table
    python -m benchmarks.trunks --data=FOLDER --csv=FILE --part=development  # what was chosen from

FOLDER holds tables and splits of the form that `jaxmat.experiments.study.samples.find_tables`
reads. Each cell is a training by the `sound` protocol on one of the published lists of labels. Its
row is added to the file at once; cells that are there already are passed over, so that the command
goes on where it was stopped. On the part "test" models are tested on the published test crystals,
on the part "development" on crystals of the pool that are not in the trial's list.

--variants=NAME,NAME runs some variants alone, --sets, --sizes and --trials some of the cells.
With --together the trials of a set are one program, which on a GPU is compiled once for all.
At the end, and with --report alone, a table is printed, the published errors below.
"""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.kept import read_typed
from benchmarks.published import Marks, read_marks
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.population import train_population
from jaxmat.experiments.protocols import settle, settle_network, settle_training, steps_per_epoch
from jaxmat.experiments.study.samples import (
    IdLists,
    Samples,
    finetuning_split,
    read_samples,
)
from jaxmat.experiments.study.tables import find_tables
from jaxmat.report.study.published import HALF_RANGES
from jaxmat.report.tables import format_table

# Crystals of the pool to choose on, at most.
_DEVELOPMENT = 500
PARTS = ("development", "test")
_VALIDATIONS = 20
# The published runs of this trial of ph used lists that were not released.
_LOST_PH_TRIAL = 5

# Variant → fields of the config of a study; what they leave out is as the protocol says.
FROZEN: Mapping[str, Mapping[str, Any]] = {
    f"{kind} {features}": {"network.trunk.kind": kind, "network.trunk.element_features": features}
    for kind, features in (
        ("cogn", "properties"),
        ("alignn", "table"),
        ("cogn", "table+embedding"),
        ("alignn", "properties"),
        ("cogn", "table"),
        ("cogn", "table+properties+embedding"),
    )
}
# Tried on development data: features of elements, then each one step from properties alone.
_PROPERTIES: Mapping[str, Any] = {
    "network.trunk.kind": "cogn",
    "network.trunk.element_features": "properties",
}
_POOLED: Mapping[str, Any] = {"network.trunk.kind": "alignn", "network.trunk.pool_bonds": True}
TRIED: Mapping[str, Mapping[str, Any]] = (
    {
        f"cogn {features}": {**_PROPERTIES, "network.trunk.element_features": features}
        for features in (
            "properties",
            "table+embedding",
            "properties+embedding",
            "table+properties",
            "table+properties+embedding",
        )
    }
    | {
        f"cogn properties {what}": {**_PROPERTIES, name: value}
        for what, name, value in (
            ("16 neighbours", "graph.max_neighbors", 16),
            ("24 neighbours", "graph.max_neighbors", 24),
            ("3 layers", "network.trunk.layers", 3),
            ("4 layers", "network.trunk.layers", 4),
            ("7 layers", "network.trunk.layers", 7),
            ("sum", "network.trunk.sum_bonds", True),
            ("layer norm", "network.trunk.layer_norm", True),
            ("last checkpoint", "training.test_with", "last"),
            ("onecycle", "training.schedule", "onecycle"),
            ("half the steps", "training.steps", 500),
            ("9000 steps", "training.steps", 9000),
            ("18000 steps", "training.steps", 18000),
        )
    }
    | {
        # The shorter ones are for fe, whose crystals take seven times as long as those of gv.
        "alignn table pool_bonds": _POOLED,
        "alignn table 1000 steps": {"network.trunk.kind": "alignn", "training.steps": 1000},
        "alignn table pool_bonds 1000 steps": {**_POOLED, "training.steps": 1000},
    }
)
VARIANTS = {**FROZEN, **TRIED}


class Cell(NamedTuple):
    """One training."""

    part: str
    variant: str
    set: str
    size: int
    trial: int


class Row(NamedTuple):
    """What became of a cell; errors are in half ranges of all labels, as published.

    Attributes:
        cell: which.
        crystals: tested on.
        mae: on them.
        validation_mae: of the checkpoint that was tested.
        steps: of the training.
        seconds: that it all took.
    """

    cell: Cell
    crystals: int
    mae: float
    validation_mae: float
    steps: int
    seconds: float


HEADER = (*Cell._fields, *Row._fields[1:])


def run_cells(cells: Sequence[Cell], samples: Samples, steps_factor: float = 1.0) -> list[Row]:
    """Trains networks in one program, and tests each.

    Args:
        cells: trials of one variant with as many labels.
        samples: of their set.
        steps_factor: of the steps that the protocol gives, for a test of the machinery.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(cell.trial)) for cell in cells]
        settled = [
            _settle(cell, samples, Path(folder, f"{cell.trial}.json"), steps_factor)
            for cell in cells
        ]
        results = train_population([one.config for one in settled], places, Path(folder))
    assert results is not None
    half, _ = HALF_RANGES[cells[0].set]
    seconds = (time.monotonic() - began) / len(cells)
    return [
        Row(
            cell,
            crystals=one.tested,
            mae=result["test_mae"] / half,
            validation_mae=result["validation_mae"] / half,
            steps=one.steps,
            seconds=seconds,
        )
        for cell, one, result in zip(cells, settled, results, strict=True)
    ]


class _Settled(NamedTuple):
    """The config of a cell, its steps, and how many crystals are tested on."""

    config: ConfigDict
    steps: int
    tested: int


def _settle(cell: Cell, samples: Samples, lists: Path, steps_factor: float) -> _Settled:
    """Returns what a cell is trained by; `lists` gets its crystals."""
    study = defaults.study("")
    study.update_from_flattened_dict(VARIANTS[cell.variant])
    split = finetuning_split(samples, cell.size, cell.trial)
    if cell.part == "development":
        split = development_split(samples, cell.size, cell.trial)
    counts = {"n_train": len(split["train"]), "n_validation": len(split["validation"])}
    fixed = settle_training(study, "training", **counts)
    epochs = fixed["epochs"] = max(1, round(fixed["epochs"] * steps_factor))
    fixed["evaluate_every"], fixed["save_every"] = -(-epochs // _VALIDATIONS), epochs

    table = samples.table
    config = defaults.scratch(path=table.path, target=table.target, unit=table.unit)
    config.seed = cell.trial
    config.graph.update(settle(study, "graph"))
    config.network = settle_network(study)
    fields = settle(study, "data", heavy_tail=samples.heavy_tail)
    config.data.update({name: value for name, value in fields.items() if name in config.data})
    config.data.id_column = ""
    config.training.update({**fixed, "learning_rate": study.study.learning_rates[0]})
    lists.write_text(json.dumps(split), encoding="utf-8")
    config.data.split = str(lists)
    steps = epochs * steps_per_epoch(fixed, counts["n_train"])
    return _Settled(config, steps, len(split["test"]))


def development_split(samples: Samples, size: int, trial: int) -> IdLists:
    """Returns the crystals of a trial, tested on others of the pool instead of the test part."""
    split = finetuning_split(samples, size, trial)
    used = {*split["train"], *split["validation"]}
    rest = [id for id in samples.pool if id not in used]
    shuffled = np.random.RandomState(trial).permutation(rest).tolist()
    return {**split, "test": shuffled[:_DEVELOPMENT]}


def find_done(file: Path) -> list[Row]:
    """Returns the rows of a file, none where there is no file.

    Raises:
        UserError: see `read_typed`.
    """
    if not file.exists():
        return []
    hints = get_type_hints(Cell) | get_type_hints(Row)
    found = read_typed(file, {name: hints[name] for name in HEADER})
    return [
        Row(Cell(*(row[n] for n in Cell._fields)), *(row[n] for n in HEADER[len(Cell._fields) :]))
        for row in found
    ]


def add_row(file: Path, row: Row) -> None:
    """Adds a row to a file, which is made if there is none."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(HEADER)
        cells = [*row.cell, *row[1:]]
        writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in cells])


def grid(
    part: str,
    variants: Sequence[str],
    sets: Sequence[str],
    sizes: Sequence[int],
    trials: Sequence[int],
) -> Iterator[Cell]:
    """Yields cells, all of a variant before those of the next, a trial on all sets at a time."""
    for variant, trial, size, key in itertools.product(variants, trials, sizes, sets):
        if part == "development" or key != "ph" or trial != _LOST_PH_TRIAL:
            yield Cell(part, variant, key, size, trial)


def _but_its_trial(cell: Cell) -> Cell:
    return cell._replace(trial=0)


def tabulate(rows: Sequence[Row], marks: Marks) -> str:
    """Returns means and standard deviations over trials, a line for each part and variant.

    Args:
        rows: of cells.
        marks: published errors; their lines come last.
    """
    columns = sorted({(row.cell.set, row.cell.size) for row in rows})
    lines: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
    for row in rows:
        line = lines.setdefault((row.cell.part, row.cell.variant), {})
        line.setdefault((row.cell.set, row.cell.size), []).append(row.mae)
    for (key, size, kind), mark in marks.items():
        if (key, size) in columns:
            lines.setdefault(("", kind), {})[key, size] = list(mark.by_trial.values())
    return format_table(
        [
            {"part": part, "variant": variant}
            | {f"{key} {size}": line.get((key, size)) for key, size in columns}
            for (part, variant), line in lines.items()
        ]
    )


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables and splits.", required=True)
    flags.DEFINE_string("csv", None, "File that rows are added to.", required=True)
    flags.DEFINE_enum("part", "test", PARTS, "Crystals to test on.")
    flags.DEFINE_list("variants", None, "Variants; by default those of the part.")
    flags.DEFINE_list("sets", ["ph", "dc", "gv", "ebg"], "Sets.")
    flags.DEFINE_list("sizes", ["100", "800"], "Numbers of labels.")
    flags.DEFINE_list("trials", ["1", "2", "3", "4", "5"], "Trials.")
    flags.DEFINE_bool("together", False, "Train the trials of a set in one program.")
    flags.DEFINE_bool("report", False, "Train nothing, print the table of what there is.")


def _main(argv: list[str]) -> None:
    refuse_arguments(argv, "Values are separated by commas.")
    values = flags.FLAGS
    file, part = Path(values.csv), values.part
    variants = values.variants or list(FROZEN if part == "test" else TRIED)
    if unknown := sorted({*variants} - {*VARIANTS}):
        raise UserError(f"There is no variant {', '.join(unknown)}; use {', '.join(VARIANTS)}.")
    sizes, trials = ([int(text) for text in each] for each in (values.sizes, values.trials))
    done = {row.cell for row in find_done(file)}
    cells = [c for c in grid(part, variants, values.sets, sizes, trials) if c not in done]
    tables, data = find_tables(values.data), defaults.study("").data
    samples: dict[str, Samples] = {}
    programs = [[cell] for cell in cells]
    if values.together:
        programs = [list(alike) for _, alike in itertools.groupby(sorted(cells), _but_its_trial)]
    for alike in [] if values.report else tqdm(programs, disable=None):
        key = alike[0].set
        if key not in samples:
            samples[key] = read_samples(tables[key], data)
        for row in run_cells(alike, samples[key]):
            add_row(file, row)
    print(tabulate([row for row in find_done(file) if row.cell.part == part], read_marks()))


if __name__ == "__main__":
    _define_flags()
    run_program(_main)
