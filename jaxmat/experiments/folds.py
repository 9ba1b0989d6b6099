"""The labels to choose with, and the folds they are cut into."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.data.drawing import Pick, by_group, by_label, group_folds, label_folds
from jaxmat.errors import UserError
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.experiments.splitting import is_grouped

Split = Mapping[str, Sequence[str]]
# Parts of the data that are cut into folds.
_PARTS = ("train", "validation")


class Folds(NamedTuple):
    """The labels to choose with.

    Attributes:
        labels: id → label, in the property's unit.
        splits: name of a fold → what its run trains on, validates on and predicts.
        number: of folds, which the repeats have each.
        grouped: whether they are cut between groups that stay together.
    """

    labels: dict[str, float]
    splits: dict[str, Split]
    number: int
    grouped: bool = False


def draw_folds(
    ids: Sequence[str], folds: int, n_validation: int, seed: int
) -> list[dict[str, list[str]]]:
    """Cuts crystals into folds, each the test part of a split whose other parts are the rest.

    Args:
        ids: of the crystals, each once.
        folds: how many; their sizes differ by one at most.
        n_validation: crystals of the validation part, one more where a fold is smaller: all train
            on the same number, so that they fit into one program.
        seed: of the drawing.

    Raises:
        UserError: there are fewer crystals than folds, or fewer than two are left to train on.
    """
    n_train = len(ids) - math.ceil(len(ids) / folds) - n_validation
    if n_train < 2 or folds > len(ids):
        raise UserError(
            f"{len(ids)} training labels are too few for {folds} folds with {n_validation} "
            "crystals to validate on: each fold needs one, and at least two to train on. Give more "
            "labels, or lower config.folds or config.data.n_validation."
        )
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    shuffled = np.random.RandomState([seed, 2]).permutation(sorted(ids)).tolist()
    bounds = [len(ids) * k // folds for k in range(folds + 1)]
    splits = []
    for start, end in itertools.pairwise(bounds):
        rest = shuffled[end:] + shuffled[:start]
        splits.append(
            {"train": rest[:n_train], "validation": rest[n_train:], "test": shuffled[start:end]}
        )
    return splits


def draw_like(
    ids: Sequence[str],
    tests: Sequence[np.ndarray],
    pick: Pick,
    n_validation: int,
    seed: int,
) -> list[dict[str, list[str]]]:
    """Makes splits of folds that were drawn in some way, and their validation parts in that way.

    All train on the same number, so that they fit into one program; what a fold has beyond that is
    left out.

    Args:
        ids: of the crystals, each once.
        tests: which of them each fold tests.
        pick: how the validation part is drawn.
        n_validation: crystals of the validation part, more where groups stay together.
        seed: of the drawing.

    Raises:
        UserError: fewer than two are left to train on.
    """
    parts = []
    for fold, test in enumerate(tests):
        rest = np.setdiff1d(np.arange(len(ids)), test)
        validation = pick(rest, n_validation, [seed, 2, fold])
        train = np.random.RandomState([seed, 3, fold]).permutation(np.setdiff1d(rest, validation))
        parts.append((train, validation, test))
    n_train = min(len(train) for train, *_ in parts)
    if n_train < 2:
        raise UserError(
            f"{len(ids)} training labels in groups that stay together (config.data.split_by) are "
            f"too few for {len(tests)} folds with {n_validation} crystals to validate on: at least "
            "two have to be left to train on. Give more labels, or other groups, or lower "
            "config.folds or config.data.n_validation."
        )
    return [
        {
            part: [ids[row] for row in rows.tolist()]
            for part, rows in zip(PARTS, (train[:n_train], validation, test), strict=True)
        }
        for train, validation, test in parts
    ]


def make_folds(config: ConfigDict, data: Prepared) -> Folds:
    """Returns the folds of all labels but the test part's, drawn as that part was.

    Raises:
        UserError: there are too few labels, or groups, for so many folds.
    """
    labels = {
        id: float(label)
        for part in _PARTS
        for id, label in zip(data.ids[part], data.labels[part][:, 0], strict=True)
    }
    # The share that the final model validates on.
    n_validation = max(1, round(len(data.ids["validation"]) * (1 - 1 / config.folds)))
    splits: dict[str, Split] = {
        f"repeat_{repeat}_fold_{fold}": split
        for repeat in range(config.repeats)
        for fold, split in enumerate(
            _draw(config, data, labels, n_validation, config.seed + repeat)
        )
    }
    return Folds(labels, splits, config.folds, bool(data.groups))


def _draw(
    config: ConfigDict, data: Prepared, labels: Mapping[str, float], n_validation: int, seed: int
) -> Sequence[Split]:
    ids = sorted(labels)
    if data.groups:
        of = {
            id: group
            for part in _PARTS
            for id, group in zip(data.ids[part], data.groups[part], strict=True)
        }
        groups = [of[id] for id in ids]
        if len(set(groups)) < config.folds:
            raise UserError(
                f"The training labels are of {len(set(groups))} groups that stay together "
                f"(config.data.split_by), too few for {config.folds} folds; lower config.folds."
            )
        tests = group_folds(groups, config.folds, seed)
        return draw_like(ids, tests, by_group(groups), n_validation, seed)
    if config.data.split_by == "stratified" and not config.data.split and len(ids) >= config.folds:
        values = np.array([labels[id] for id in ids])
        tests = label_folds(values, config.folds, seed)
        return draw_like(ids, tests, by_label(values), n_validation, seed)
    return draw_folds(ids, config.folds, n_validation, seed)


def describe_folds(config: ConfigDict) -> str:
    """Returns what the folds of a choice are."""
    if is_grouped(config.data):
        return f"{config.folds} folds of whole groups, drawn by {config.data.split_by}"
    return f"{config.folds} folds; Gaussian processes with 50 labels or fewer: leave-one-out"


def describe_test(config: ConfigDict) -> str:
    """Returns what is said of folds that are not like the test part, "" where they are."""
    way, _, symbol = config.data.split_by.partition(":")
    if way != "element" or config.data.split:
        return ""
    return (
        f"the expected error is not about the test part, whose crystals all hold {symbol}: it is "
        f"about crystals like the other labels, none of which holds {symbol}"
    )
