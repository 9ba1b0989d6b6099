"""The best candidate or a mean of the best few, and what picking flatters by."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmat.report.blend import pick


def test_independent_errors_are_averaged_away() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=200)
    predictions = labels + rng.normal(size=(3, 200))
    found = pick(predictions, labels, np.ones(3, bool))
    assert found.weights.sum() == pytest.approx(1) and (found.weights > 0).sum() >= 2
    assert found.error < 0.85 * np.abs(predictions - labels).mean(axis=1).min()
    alone = pick(predictions, labels, np.zeros(3, bool))
    assert sorted(alone.weights) == [0, 0, 1]
    # Only those that may be are in a mean.
    some = pick(predictions, labels, np.array([True, False, True]))
    assert some.weights[1] == 0


def test_a_mean_that_gains_nothing_is_not_picked() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=100)
    good = labels + 0.1 * rng.normal(size=100)
    predictions = np.stack([labels + 3 + rng.normal(size=100), good, good + 1e-9])
    found = pick(predictions, labels, np.ones(3, bool))
    assert sorted(found.weights) == [0, 0, 1] and found.weights[0] == 0


def test_optimism_is_what_picking_among_noise_gains() -> None:
    """The least of five means of noise around 1 is below 1; what is added makes up for it."""
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 0.5, (30, 5, 40))
    labels = np.zeros(40)
    picks = [pick(np.abs(sample), labels, np.zeros(5, bool)) for sample in samples]
    least = np.array([each.error for each in picks])
    corrected = least + [each.optimism for each in picks]
    level = np.abs(samples).mean()
    assert least.mean() < 0.93 * level
    assert abs(corrected.mean() - level) < 0.05 * level


def test_there_is_no_optimism_without_a_choice() -> None:
    predictions = np.random.default_rng(0).uniform(1, 2, (1, 30))
    assert pick(predictions, np.zeros(30), np.ones(1, bool)).optimism == 0
    far = np.concatenate([predictions, predictions + 3])
    assert pick(far, np.zeros(30), np.zeros(2, bool)).optimism == 0
