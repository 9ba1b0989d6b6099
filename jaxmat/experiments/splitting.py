"""The split that a config asks for: read from a file, or drawn."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from pymatgen.core import Element

from jaxmat.data.drawing import (
    Pick,
    by_chance,
    by_group,
    by_label,
    draw_split,
    group_folds,
    kfold,
    label_folds,
)
from jaxmat.data.findings import Findings
from jaxmat.data.layouts.cells import is_missing
from jaxmat.data.splits import Split, random_split, read_split
from jaxmat.errors import UserError, counted
from jaxmat.experiments.labelled import Labelled

WAYS = "random, stratified, composition, chemical_system, column:NAME or element:SYMBOL"


def find_split(config: ConfigDict, seed: int, labelled: Labelled, findings: Findings) -> Split:
    """Returns the split of the usable rows.

    Args:
        config: `data` of a config.
        seed: of the training and validation parts.
        labelled: the usable rows.
        findings: get a remark where rows of a file are left out.

    Raises:
        UserError: a file that cannot be used, or a split that cannot be drawn.
    """
    if config.split:
        return _read(Path(config.split), config, seed, labelled, findings)
    return _draw(config, seed, labelled)


def is_grouped(config: ConfigDict) -> bool:
    """Whether the parts that `data` of a config asks for are drawn by groups."""
    way = config.split_by.partition(":")[0]
    return not config.split and way in ("composition", "chemical_system", "column")


def split_groups(config: ConfigDict, labelled: Labelled) -> Sequence[Hashable] | None:
    """Returns the group of each usable row where the parts are drawn by groups, else None.

    Args:
        config: `data` of a config.
        labelled: the usable rows.
    """
    if not is_grouped(config):
        return None
    way, _, name = config.split_by.partition(":")
    return _groups(config, way, name, labelled)


def _read(
    path: Path, config: ConfigDict, seed: int, labelled: Labelled, findings: Findings
) -> Split:
    """Returns the split of a file; its rows that cannot be used are left out.

    A validation part that the file lacks is drawn from its training part, and so is a test part.
    """
    whole = read_split(path, labelled.file_ids)
    usable = {number: row for row, number in enumerate(labelled.numbers)}
    parts = {
        part: np.array([usable[n] for n in rows.tolist() if n in usable], np.int64)
        for part, rows in whole.items()
    }
    if lost := sum(map(len, whole.values())) - sum(map(len, parts.values())):
        findings.remarks.append(
            f"left out of the split {path}: {counted(lost, 'crystal')} without a label, unusable, "
            "or larger than config.data.max_sites"
        )
    if len(parts) == len(Split._fields):
        return Split(**parts)
    pool = parts["train"]
    drawn = draw_split(
        pool,
        by_chance,
        seed=seed,
        test_seed=config.test_seed,
        n_train=0,
        n_validation=config.n_validation or max(1, len(pool) // 10),
        n_test=config.n_test or max(1, len(pool) // 10),
        test=np.array([], np.int64) if "test" in parts else None,
    )
    test = parts.get("test", drawn.test)
    validation = parts.get("validation", drawn.validation)
    train = np.setdiff1d(pool, np.concatenate([test, validation]))
    return Split(train=train, validation=validation, test=test)


def _draw(config: ConfigDict, seed: int, labelled: Labelled) -> Split:
    rows = len(labelled.numbers)
    n_test = config.n_test or max(1, rows // 10)
    n_validation = config.n_validation or max(1, rows // 10)
    way, _, name = config.split_by.partition(":")
    if way == "random" and not config.folds:
        n_train = config.n_train or max(0, rows - n_test - n_validation)
        return random_split(
            np.arange(rows),
            seed=seed,
            test_seed=config.test_seed,
            n_train=n_train,
            n_validation=n_validation,
            n_test=n_test,
        )
    pick, folds = _way(config, way, name, labelled)
    test = _holding(name, labelled) if way == "element" else None
    if folds:
        if not 0 <= config.fold < len(folds):
            raise UserError(f"config.data.fold is {config.fold}; there are 0 to {len(folds) - 1}")
        test = folds[config.fold]
    return draw_split(
        np.arange(rows),
        pick,
        seed=seed,
        test_seed=config.test_seed,
        n_train=config.n_train,
        n_validation=n_validation,
        n_test=n_test,
        test=test,
    )


def _way(
    config: ConfigDict, way: str, name: str, labelled: Labelled
) -> tuple[Pick, list[np.ndarray]]:
    """Returns how rows are picked, and the folds, none where they are not asked for."""
    folds, seed = config.folds, config.test_seed
    if way == "random":
        return by_chance, kfold(len(labelled.numbers), folds, seed)
    if way == "element":
        if folds:
            raise UserError("config.data.folds: a split by an element has no folds")
        return by_chance, []
    if way == "stratified":
        labels = labelled.labels[:, 0]
        if np.isnan(labels).any():
            raise UserError(
                "config.data.split_by: stratified needs a label of the first property in each row"
            )
        return by_label(labels), label_folds(labels, folds, seed) if folds else []
    groups = _groups(config, way, name, labelled)
    return by_group(groups), group_folds(groups, folds, seed) if folds else []


def _groups(config: ConfigDict, way: str, name: str, labelled: Labelled) -> Sequence[Hashable]:
    if way in ("composition", "chemical_system"):
        found = labelled.table.contents.compositions()
        return found if way == "composition" else [elements for elements, _ in found]
    if way == "column":
        if name not in labelled.table.columns:
            there = ", ".join(labelled.table.columns) or "none"
            raise UserError(f"config.data.split_by: no column {name!r}; there are: {there}")
        cells = map(str, labelled.table.columns[name])
        # Rows without a group are each one of their own.
        return [(row,) if is_missing(cell) else cell for row, cell in enumerate(cells)]
    raise UserError(f"config.data.split_by is {config.split_by!r}; it may be {WAYS}")


def _holding(symbol: str, labelled: Labelled) -> np.ndarray:
    """Returns the rows whose crystals hold an element.

    Raises:
        UserError: none does, or there is no such element.
    """
    if not Element.is_valid_symbol(symbol):
        raise UserError(f"config.data.split_by: {symbol!r} is not an element; write element:Fe")
    number = Element(symbol).Z
    found = labelled.table.contents.compositions()
    rows = [row for row, (elements, _) in enumerate(found) if number in elements]
    if not rows:
        raise UserError(f"config.data.split_by: no crystal holds {symbol}")
    return np.array(rows, np.int64)
