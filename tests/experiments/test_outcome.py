"""Metrics of a part, by which checkpoints are chosen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from jaxmat.data.targets import TargetTransform
from jaxmat.experiments.outcome import scores


def of_two(validation: list[list[float]]) -> Any:
    """Gaps, and moments whose training labels have the median 0."""
    labels = {"train": np.array([[1, 0], [3, 0], [5, 6]]), "validation": np.array(validation)}
    return SimpleNamespace(
        transforms={
            name: TargetTransform(name, "1", False, 0.0, 1.0) for name in ("gap", "moment")
        },
        labels=labels,
        datasets={part: SimpleNamespace(target=values) for part, values in labels.items()},
    )


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ([[2.0, 3.0], [6.0, 0.0]], (1 / 2 + 1 / 1.5) / 2),
        # All moments are the median: MAE 2 of it on the training part.
        ([[2.0, 0.0], [6.0, 0.0]], (1 / 2 + 1 / 2) / 2),
        ([[2.0, np.nan], [6.0, np.nan]], 1 / 2),
        ([[3.0, 0.0], [3.0, 0.0]], (1 / (4 / 3) + 1 / 2) / 2),
    ],
)
def test_each_property_with_labels_has_a_say(validation: Any, expected: float) -> None:
    data = of_two(validation)
    found = scores(data.labels["validation"] + 1, cast(Any, data), "validation")
    assert found["validation_relative_mae"] == pytest.approx(expected)
