"""Which crystals of a table each run sees: those that the authors listed, or drawn ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.splits import random_split
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import settle
from jaxmat.experiments.study.cells import Cell, Run
from jaxmat.experiments.study.tables import TableFile, read_table

_logger = logging.getLogger(__name__)

# Skewness from which a tail is heavy: that of an exponential distribution.
_HEAVY = 2.0
# How the authors named their lists of crystals to pre-train on.
_PRETRAINING_LIST = "{key}_{size}_std_clean.json"

IdLists = dict[str, list[str]]


class Seen(NamedTuple):
    """What a run sees: `data` of its config but for the split, and the ids of each part."""

    data: ConfigDict
    split: IdLists


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

    @property
    def size(self) -> int:
        """Number of labels of a pre-training on all that is not for the test."""
        return len(self.pool)

    def takes_all(self, size: int) -> bool:
        """Whether a pre-training on so many labels takes all that are not for the test."""
        listed_ids = self.table.lists.get("other_lists", {})
        is_listed = _PRETRAINING_LIST.format(key=self.table.key, size=size) in listed_ids
        return not is_listed and (not size or size >= self.size)

    def seen_by(self, run: Run, config: ConfigDict) -> Seen:
        """Returns what a run on this table sees.

        Args:
            run: the run.
            config: of the study.

        Raises:
            UserError: see `finetuning_split` and `pretraining_split`.
        """
        fields = settle(config, "data", heavy_tail=self.heavy_tail)
        data = defaults.data(self.table.path, self.table.target, self.table.unit)
        data.update({name: value for name, value in fields.items() if name in data})
        data.id_column = ""
        if isinstance(run, Cell):
            return Seen(data, finetuning_split(self, run.target_size, run.trial))
        return Seen(data, pretraining_split(self, run.size, run.seed))


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
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(
            f"table {table.key}: its splits file lists crystals twice in one list:\n{listed(twice)}"
        )
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
    names = list(dict.fromkeys(str(id) for id in table.lists["test"]))
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


def _skewness(values: np.ndarray) -> float:
    deviation = values - values.mean()
    spread = deviation.std()
    return float(np.mean(deviation**3) / spread**3) if spread > 0 else 0.0
