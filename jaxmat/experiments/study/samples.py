"""The tables of a study, and which of their crystals each run sees."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.splits import random_split
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.labelled import Labelled
from jaxmat.experiments.prepare import read_labelled

_logger = logging.getLogger(__name__)

# Skewness from which a tail is heavy: that of an exponential distribution.
_HEAVY = 2.0
# How the authors named their lists of crystals to pre-train on.
_PRETRAINING_LIST = "{key}_{size}_std_clean.json"

IdLists = dict[str, list[str]]


class TableFile(NamedTuple):
    """A table of one property.

    Attributes:
        key: its name in the study.
        path: as in `data.path` of a config.
        target: column of the labels.
        unit: of the labels.
        lists: what its splits file says of test crystals and trials, {} for nothing.
    """

    key: str
    path: str
    target: str
    unit: str
    lists: Mapping[str, Any]


class Samples(NamedTuple):
    """The usable crystals of a table, by id.

    Attributes:
        table: the table.
        heavy_tail: whether all labels are positive and have a heavy tail but for the logarithm.
        test: crystals that no run on this table trains on, unless the authors' list says so.
        pool: all others.
    """

    table: TableFile
    heavy_tail: bool
    test: list[str]
    pool: list[str]


BUNDLED = {
    key: TableFile(key, f"bundled:{key}", target, unit, {})
    for key, target, unit in (
        ("dielectric", "poly_total", "1"),
        ("piezoelectric", "eij_max", "C/m^2"),
        ("formation_energy", "e_form", "eV/atom"),
    )
}


def find_tables(place: str) -> dict[str, TableFile]:
    """Returns the tables of a study by key.

    Args:
        place: "bundled", or a folder with tables NAME.json.gz, NAME.json or NAME.csv and for each
            a file splits/NAME.json: {"target_column": ..., "unit": ...} and, where the crystals
            are not to be drawn, "test": [ids], "trials": {trial: {size: [ids]}} and "n_train_val":
            {size: [training, validation]}. Ids are the index of the table.

    Raises:
        UserError: there is no such folder, or a file in it cannot be used.
    """
    if place == "bundled":
        return dict(BUNDLED)
    tables = {}
    for file in sorted((Path(place) / "splits").glob("*.json")):
        paths = [Path(place) / f"{file.stem}{end}" for end in (".json.gz", ".json", ".csv")]
        if path := next((path for path in paths if path.is_file()), None):
            lists = _read_lists(file)
            about = str(path), lists["target_column"], lists["unit"]
            tables[file.stem] = TableFile(file.stem, *about, lists)
    if not tables:
        raise UserError(
            f"config.data.tables: {place} has no table NAME.json.gz with a file splits/NAME.json "
            'beside it, {"target_column": COLUMN, "unit": UNIT}.'
        )
    return tables


def read_samples(table: TableFile, data: ConfigDict) -> Samples:
    """Reads a table and sets its test crystals apart.

    Args:
        table: the table.
        data: `data` of the study's config.

    Raises:
        UserError: see `read_labelled`.
    """
    labelled = read_table(table, data)
    ids, all_labels = list(labelled.table.ids), labelled.labels[:, 0]
    test = _test_ids(table, ids)
    in_test = set(test)
    labels = [y for id, y in zip(ids, all_labels, strict=True) if id not in in_test]
    return Samples(
        table=table,
        heavy_tail=bool(all_labels.min() > 0) and has_heavy_tail(np.array(labels)),
        test=test,
        pool=[id for id in ids if id not in in_test],
    )


def read_table(table: TableFile, data: ConfigDict) -> Labelled:
    """Returns the usable rows of a table; their ids are its index.

    Args:
        table: the table.
        data: `data` of the study's config.

    Raises:
        UserError: see `read_labelled`.
    """
    config = defaults.data(path=table.path, target=table.target, unit=table.unit)
    config.update(
        id_column="", max_sites=data.max_sites, max_rejected_fraction=data.max_rejected_fraction
    )
    return read_labelled(config)


def has_heavy_tail(labels: np.ndarray) -> bool:
    """Whether positive labels have a heavy upper tail that the logarithm takes away.

    Args:
        labels: in the property's unit, [labels].
    """
    skewness = _skewness(labels)
    return skewness > _HEAVY and abs(_skewness(np.log(labels))) < skewness / 2


def finetuning_split(samples: Samples, size: int, trial: int) -> IdLists:
    """Returns the crystals of a trial: those listed for it, or drawn with its number as seed.

    Drawn samples of one trial are nested: a larger one contains the smaller ones.

    Raises:
        UserError: the pool is too small, or lacks crystals of the list.
    """
    table = samples.table
    listed_ids = table.lists.get("trials", {}).get(str(trial), {}).get(str(size))
    if listed_ids is None:
        chosen = _draw(samples, size, trial)
    else:
        chosen = _in_order(table, listed_ids, set(samples.pool))
    return {**chosen, "test": samples.test}


def pretraining_split(samples: Samples, size: int, seed: int) -> IdLists:
    """Returns the crystals of a pre-training: those listed for this size, or drawn.

    Where the pool has fewer than `size`, or `size` is 0, all of it is drawn.

    Raises:
        UserError: the table lacks crystals of the list.
    """
    table = samples.table
    name = _PRETRAINING_LIST.format(key=table.key, size=size)
    listed_ids = table.lists.get("other_lists", {}).get(name)
    if listed_ids is None:
        n = len(samples.pool)
        return {**_draw(samples, min(size or n, n), seed), "test": samples.test}
    chosen = _in_order(table, listed_ids, {*samples.pool, *samples.test})
    used = {id for part in chosen.values() for id in part}
    unused = [id for id in samples.test if id not in used]
    return {**chosen, "test": unused or [id for id in samples.pool if id not in used]}


def _draw(samples: Samples, size: int, seed: int) -> IdLists:
    if size > len(samples.pool):
        raise UserError(
            f"table {samples.table.key}: {size} labels are asked for, but beside its test part it "
            f"has {len(samples.pool)}; lower config.study.target_sizes."
        )
    n_train, n_validation = _n_train_val(samples.table, size)
    drawn = random_split(
        np.arange(len(samples.pool)),
        seed=seed,
        test_seed=0,
        n_train=n_train,
        n_validation=n_validation,
        n_test=0,
    )
    return {
        "train": [samples.pool[i] for i in drawn.train],
        "validation": [samples.pool[i] for i in drawn.validation],
    }


def _in_order(table: TableFile, ids: Sequence[Any], usable: set[str]) -> IdLists:
    """Splits a list in its order, as the authors did."""
    names = [str(id) for id in ids]
    if missing := [name for name in names if name not in usable]:
        raise UserError(
            f"table {table.key}: its splits file lists crystals to train on that are in the test "
            f"part, not in the table, or cannot be used:\n{listed(missing)}"
        )
    n_train, n_validation = _n_train_val(table, len(names))
    return {"train": names[:n_train], "validation": names[n_train : n_train + n_validation]}


def _n_train_val(table: TableFile, size: int) -> tuple[int, int]:
    """Returns how many labels train and how many validate: a tenth unless the file says more."""
    n_validation = max(1, size // 10)
    drawn = (size - n_validation, n_validation)
    n_train, n_validation = table.lists.get("n_train_val", {}).get(str(size), drawn)
    return n_train, n_validation


def _test_ids(table: TableFile, ids: list[str]) -> list[str]:
    """Returns the listed test crystals in their order, or a drawn tenth where none are listed."""
    if "test" not in table.lists:
        rows = np.arange(len(ids))
        n_test = max(1, len(ids) // 10)
        drawn = random_split(rows, seed=0, test_seed=0, n_train=1, n_validation=0, n_test=n_test)
        return [ids[row] for row in drawn.test]
    there = set(ids)
    names = [str(id) for id in table.lists["test"]]
    test = [name for name in names if name in there]
    if missing := len(names) - len(test):
        _logger.warning("%s: %d of %d test crystals are not there", table.key, missing, len(names))
    if not test:
        trials = table.lists.get("trials", {}).values()
        named = {str(id) for sizes in trials for sample in sizes.values() for id in sample}
        test = [id for id in ids if id not in named]
        _logger.warning("%s: tested on the %d crystals of no trial instead", table.key, len(test))
    if not test:
        raise UserError(f"table {table.key}: none of its test crystals is there.")
    return test


def _read_lists(file: Path) -> dict[str, Any]:
    """Reads a splits file and checks what is read from it later."""
    try:
        lists = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as reason:
        raise UserError(f"{file}: cannot be read as JSON ({reason})") from reason
    if not isinstance(lists, dict) or not {"target_column", "unit"} <= lists.keys():
        raise UserError(f'{file}: expected {{"target_column": ..., "unit": ..., ...}}')
    sound = {
        "target_column": isinstance(lists["target_column"], str),
        "unit": isinstance(lists["unit"], str),
        "test": isinstance(lists.get("test", []), list),
        "trials": all(map(_holds_lists, _values(lists.get("trials", {})))),
        "other_lists": _holds_lists(lists.get("other_lists", {})),
        "n_train_val": all(
            isinstance(pair, list) and len(pair) == 2
            for pair in _values(lists.get("n_train_val", {}))
        ),
    }
    if wrong := [name for name in sound if not sound[name]]:
        raise UserError(f"{file}: not of the form expected: {', '.join(wrong)}; see find_tables")
    return lists


def _values(content: Any) -> list[Any]:
    """Returns the values of a JSON object; of anything else, itself, which then is wrong."""
    return list(content.values()) if isinstance(content, dict) else [content]


def _holds_lists(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(v, list) for v in content.values())


def _skewness(values: np.ndarray) -> float:
    deviation = values - values.mean()
    spread = deviation.std()
    return float(np.mean(deviation**3) / spread**3) if spread > 0 else 0.0
