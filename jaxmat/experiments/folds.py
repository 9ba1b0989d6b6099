"""The labels to choose with, and the folds they are cut into."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments.prepare import Prepared

Split = Mapping[str, Sequence[str]]


class Folds(NamedTuple):
    """The labels to choose with.

    Attributes:
        labels: id → label, in the property's unit.
        splits: name of a fold → what its run trains on, validates on and predicts.
    """

    labels: dict[str, float]
    splits: dict[str, Split]


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


def make_folds(config: ConfigDict, data: Prepared) -> Folds:
    """Returns the folds of all labels but the test part's."""
    labels = {
        id: float(label)
        for part in ("train", "validation")
        for id, label in zip(data.ids[part], data.labels[part][:, 0], strict=True)
    }
    # The share that the final model validates on.
    n_validation = max(1, round(len(data.ids["validation"]) * (1 - 1 / config.folds)))
    splits: dict[str, Split] = {
        f"repeat_{repeat}_fold_{fold}": split
        for repeat in range(config.repeats)
        for fold, split in enumerate(
            draw_folds(list(labels), config.folds, n_validation, config.seed + repeat)
        )
    }
    return Folds(labels, splits)
