"""Rows of results from what other commands leave: known by the columns, or the entries, of a file.

Rows of development parts and of cells that failed are passed over.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import few_labels, peers, trunks
from benchmarks.few_labels import CONSTANT, PICKED, start_named
from benchmarks.kept import find_done, read_typed
from benchmarks.results.rows import Row, scaled
from jaxmat.errors import UserError
from jaxmat.experiments.matbench import FOLDS
from jaxmat.experiments.study.cells import ALL, OTHERS
from jaxmat.report import choice
from jaxmat.report.rows import read_rows
from jaxmat.report.study.published import HALF_RANGES
from jaxmat.report.study.results import CellResult
from jaxmat.runtime.files import read_json, reason

PROCESS, NETWORK = str(choice.PROCESS), "network from random weights"
_BASELINES = {CONSTANT: "constant_test_mae", PROCESS: "gaussian_process_test_mae"}
PICKED_SOURCE = "the source that validation picks"
# Columns of a study that hold numbers.
_OF_STUDY = dict.fromkeys(("target_size", "trial", "seed"), int) | dict.fromkeys(
    ("learning_rate", "test_mae", "validation_mae", "seconds", *_BASELINES.values()), float
)
_BUT_THE_SOURCE = "target target_size strategy protocol learning_rate trial seed".split()
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


class Origin(NamedTuple):
    """What all rows of a file have in common.

    Attributes:
        item: the question; "" for that of the kind of file.
        command: that made the file.
        commit: it ran on.
    """

    item: str
    command: str
    commit: str


def convert(file: Path, origin: Origin) -> list[Row]:
    """Returns the results in a file.

    Args:
        file: CSV of benchmarks.few_labels, benchmarks.trunks or benchmarks.peers, results.csv of a
            study, or result.json of the quick start or of Matbench.
        origin: of all of them.

    Raises:
        UserError: the file is none of these, or cannot be read.
    """
    if file.suffix == ".json":
        return _from_json(file, origin)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream), [])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a CSV file ({reason(error)})") from error
    for columns, reader in _READERS.items():
        if {*columns} <= {*header}:
            return reader(file, origin)
    raise UserError(f"{file}: its columns are not those of a benchmark or study with results.")


def _from_few_labels(file: Path, origin: Origin) -> list[Row]:
    """A row for each candidate, and one for what was picked where there were several."""
    found = find_done(file, few_labels.Row)
    candidates = Counter(
        (row.set, row.size, row.trial) for row in found if row.candidate not in (CONSTANT, PICKED)
    )
    return [
        _make(
            origin._replace(item=origin.item or "few_labels"),
            *(row.set, row.size, start_named(row.candidate, row.set), row.mae),
            trial=row.trial,
            seconds=row.seconds,
        )
        for row in found
        if row.candidate != PICKED or candidates[row.set, row.size, row.trial] > 1
    ]


def _from_trunks(file: Path, origin: Origin) -> list[Row]:
    return [
        _make(
            origin._replace(item=origin.item or "trunks"),
            *(row.cell.set, row.cell.size, f"{row.cell.variant} from random weights"),
            row.mae * HALF_RANGES[row.cell.set][0],
            trial=row.cell.trial,
            seed=row.cell.trial,
            seconds=row.seconds,
        )
        for row in trunks.find_done(file)
        if row.cell.part == "test"
    ]


def _from_peers(file: Path, origin: Origin) -> list[Row]:
    return [
        _make(
            origin._replace(item=origin.item or "peers"),
            *(row.set, row.labels, row.method, row.mae),
            trial=row.trial,
            seed=0,
            seconds=row.seconds,
        )
        for row in find_done(file, peers.Row)
    ]


def _from_study(file: Path, origin: Origin) -> list[Row]:
    """A row for each cell, and for each sample of labels one of each baseline.

    Where there are several sources of one property, the one that validation picks is a method, too.
    """
    if not origin.item:
        raise UserError(f"{file}: a study may answer any question; name it with --item.")
    read_typed(file, _OF_STUDY)  # what is no number is refused
    rows: dict[Any, Row] = {}
    cells = [cell for _, cell in read_rows(file, CellResult._fields) if cell["test_mae"]]
    cells += _picked(cells)
    # Where all have the same labels, the seed tells them apart.
    one_trial = len({cell["trial"] for cell in cells}) == 1 < len({c["seed"] for c in cells})
    for cell in cells:
        target, labels = cell["target"], int(cell["target_size"])
        trial, seed = None if one_trial else int(cell["trial"]), int(cell["seed"])
        for method, column in _BASELINES.items():
            if cell[column]:
                row = _make(origin, target, labels, method, float(cell[column]), trial=trial)
                rows.setdefault(row.cell, row)
        mae, seconds = float(cell["test_mae"]), float(cell["seconds"] or "nan")
        name = study_method(cell)
        row = _make(*(origin, target, labels, name, mae), trial=trial, seed=seed, seconds=seconds)
        rows[row.cell] = row
    return list(rows.values())


def _picked(cells: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns cells whose source of one property has the least validation error, named so."""
    alike: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for cell in cells:
        single = cell["kind"] == "finetune" and cell["source"] not in (ALL, OTHERS)
        if single and cell["validation_mae"]:
            alike.setdefault(tuple(cell[name] for name in _BUT_THE_SOURCE), []).append(cell)
    return [
        {**min(of, key=lambda cell: float(cell["validation_mae"])), "source": PICKED_SOURCE}
        for of in alike.values()
        if len({cell["source"] for cell in of}) > 1
    ]


def study_method(cell: Mapping[str, str]) -> str:
    """Returns what a cell of a study is called, the same for all targets."""
    name = "random weights"
    if cell["kind"] == "finetune":
        # All properties at once have as many labels as there are, which differs by target.
        size = "" if cell["source"] in (ALL, OTHERS, PICKED_SOURCE) else f" {cell['source_size']}"
        name = f"{cell['strategy']} from {cell['source']}{size}"
    rate = f", rate {float(cell['learning_rate']):g}" if cell["learning_rate"] else ""
    return f"{name}, {cell['protocol']}{rate}"


def _from_json(file: Path, origin: Origin) -> list[Row]:
    result = read_json(file)
    if "test_mae_by_fold" in result:
        return _from_matbench(file.parent, result, origin)
    if "test_mae_by_seed" in result:
        return _from_quickstart(result, origin)
    raise UserError(f"{file}: it is the result neither of Matbench nor of the quick start.")


def _from_matbench(folder: Path, result: Mapping[str, Any], origin: Origin) -> list[Row]:
    """A row for each fold: of a network and the baselines, or of the mean of several networks."""
    task = re.search(r"task=(\w+)", origin.command)
    if not task:
        raise UserError("The command of a Matbench run names its task: --config.task=NAME.")
    labels = result["crystals"]["test"] * (FOLDS - 1) // FOLDS
    networks, strategy = result.get("networks", 1), result.get("strategy")
    rows = []
    for fold, mae in enumerate(result["test_mae_by_fold"]):
        found = read_json(folder / f"fold_{fold}" / "result.json")
        named: list[tuple[str, int | None, float, float]] = []
        if networks > 1:
            mean = f"mean of {_NUMBERS.get(networks, networks)} networks"
            mean += ", transferred" if strategy else ""
            named = [(mean, None, mae, found["seconds"])]
        elif strategy:
            named = [(f"{strategy} from all but the target", 0, mae, found["seconds"])]
        else:
            named = [
                (method, None, found[column], math.nan)
                for method, column in _BASELINES.items()
                if column in found
            ]
            named.append((NETWORK, 0, mae, found["seconds"]))
        rows += [
            _make(
                origin._replace(item=origin.item or "matbench"),
                *(task[1], labels, method, error),
                trial=fold,
                seed=seed,
                unit=result["unit"],
                seconds=seconds,
            )
            for method, seed, error, seconds in named
        ]
    return rows


def _from_quickstart(result: Mapping[str, Any], origin: Origin) -> list[Row]:
    """A row for each seed of the four models."""
    methods = {
        "constant": CONSTANT,
        "scratch": NETWORK,
        "gaussian_process": PROCESS,
        "finetuned": f"{PROCESS} and vectors of no_dielectric",
    }
    crystals = result["crystals"]
    return [
        _make(
            origin._replace(item=origin.item or "quickstart"),
            *("dielectric", crystals["train"] + crystals["validation"], method),
            result["test_mae_by_seed"][name][i],
            seed=seed,
            unit=result["unit"],
        )
        for i, seed in enumerate(result["seeds"])
        for name, method in methods.items()
    ]


def _make(
    origin: Origin,
    target: str,
    labels: int,
    method: str,
    mae: float,
    *,
    trial: int | None = None,
    seed: int | None = None,
    unit: str = "",
    seconds: float = math.nan,
) -> Row:
    """Returns a row; the unit of a published set need not be named."""
    if not unit and target not in HALF_RANGES:
        raise UserError(f"There is no published set {target!r}; use {', '.join(HALF_RANGES)}.")
    return Row(
        item=origin.item,
        target=target,
        labels=labels,
        method=method,
        trial=trial,
        seed=seed,
        mae=mae,
        unit=unit or HALF_RANGES[target][1],
        scaled_mae=scaled(target, mae),
        command=origin.command,
        commit=origin.commit,
        seconds=seconds,
    )


_READERS: Mapping[Sequence[str], Callable[[Path, Origin], list[Row]]] = {
    few_labels.Row._fields: _from_few_labels,
    trunks.HEADER: _from_trunks,
    peers.Row._fields: _from_peers,
    CellResult._fields: _from_study,
}
