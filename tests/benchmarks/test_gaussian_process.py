"""The Gaussian process on crystals of the pools: what is fitted, and how it is judged."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gaussian_process import Crystals, judge_trial
from jaxmat.crystals.descriptors import COLUMNS


def crystals(number: int, seed: int, log: bool) -> Crystals:
    """Their labels depend on one column, with more noise where another is high."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(number, COLUMNS)).astype(np.float32)
    inputs[:, 1:] *= 0.01  # but for the scaling of columns these would be of no matter
    noise = np.where(inputs[:, 1] > 0, 0.5, 0.01) * rng.normal(size=number)
    labels = 3 + inputs[:, 0] + noise
    ids = [f"{seed}_{i}" for i in range(number)]
    return Crystals(ids, inputs, np.exp(labels) if log else labels)


@pytest.mark.parametrize("log", [False, True])
def test_a_process_and_its_intervals_are_judged_on_other_crystals(log: bool) -> None:
    known, new = crystals(300, 0, log), crystals(200, 1, log)
    errors, intervals = judge_trial(known, new, log, half_range=2.0)
    off = np.abs(np.median(known.labels) - new.labels)
    assert errors["median"] == pytest.approx(np.mean(off) / 2)
    assert errors["two lengths"] < errors["median"] and errors["one length"] < errors["median"]
    for spread in ("deviation", "default"):
        assert 0.8 < intervals[f"{spread}: coverage"] < 0.98
        assert 0.5 < intervals[f"{spread}: score"] < 1.5
    assert intervals["default: score"] != intervals["deviation: score"]
