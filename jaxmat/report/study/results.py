"""The table of results of a study: one row a cell, kept as CSV."""

from __future__ import annotations

import math
from typing import NamedTuple

STATUSES = ("done", "failed", "missing")


class CellResult(NamedTuple):
    """What is known of one cell; numbers in the property's unit unless named scaled.

    Attributes:
        cell: id.
        kind: "scratch" or "finetune".
        source: key of the property pre-trained on, "" for scratch.
        source_size: labels pre-trained on, None for scratch.
        target: key of the property that is tested.
        target_size: labels to train and validate on.
        strategy: name of the fine-tuning strategy.
        protocol: name of the protocol.
        learning_rate: greatest learning rate, None where it is not known.
        trial: number of the sample of labels.
        status: "done", "failed" or "missing".
        property: name of the target property.
        unit: of the target property, "1" if it has none.
        n_train: labels trained on.
        n_validation: labels that choose the checkpoint.
        n_test: labels tested on.
        test_mae: NaN, as all that follow, where it is missing or the run has diverged.
        test_rmse: root mean squared error.
        test_r2: coefficient of determination.
        test_mae_scaled: in the units of the network.
        test_r2_scaled: in the units of the network.
        train_mae: of the training labels.
        train_mae_scaled: in the units of the network.
        constant_test_mae: of the median of the training labels.
        seconds: the cell took.
        directory: relative to the study's; holds predictions.csv.
        seed: of the weights and the order of the data.
        reason: of a failure.
        gaussian_process_test_mae: of a Gaussian process on descriptors, fitted to the same labels.
        validation_mae: of the checkpoint that is tested, on the labels that choose it.
    """

    cell: str
    kind: str
    source: str
    source_size: int | None
    target: str
    target_size: int
    strategy: str
    protocol: str
    learning_rate: float | None
    trial: int
    status: str
    property: str
    unit: str
    n_train: int | None
    n_validation: int | None
    n_test: int | None
    test_mae: float
    test_rmse: float
    test_r2: float
    test_mae_scaled: float
    test_r2_scaled: float
    train_mae: float
    train_mae_scaled: float
    constant_test_mae: float
    seconds: float
    directory: str
    seed: int = 0
    reason: str = ""
    gaussian_process_test_mae: float = math.nan
    validation_mae: float = math.nan
