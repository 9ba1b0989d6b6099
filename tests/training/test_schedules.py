from __future__ import annotations

import math
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmat.errors import UserError
from jaxmat.training.schedules import onecycle, onecycle_beta1, warmup_cosine

GOLDEN = Path(os.environ.get("JAXMAT_GOLDEN", Path(__file__).parents[2] / "../shared/reference"))
PUBLISHED = GOLDEN / "golden" / "onecycle_500x45_lr1e-3.npz"

# Learning rate and beta1 that torch 2.13's OneCycleLR(max_lr=1e-3, total_steps=22500) gave.
TORCH = {
    0: (3.9999999999999996e-05, 0.95),
    1: (4.0000052003446034e-05, 0.9499999945829743),
    3000: (0.00043674667239731004, 0.9086722216252802),
    6748: (0.000999999947996554, 0.8500000054170256),
    6749: (0.001, 0.85),
    6750: (0.0009999999900533487, 0.8500000009946691),
    15000: (0.00046253764958262744, 0.9037464500275373),
    22498: (4.009946651461666e-09, 0.9499999990053308),
    22499: (4e-09, 0.95),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def test_a_handful_of_torch_values(float64):
    steps = np.array(list(TORCH))
    rate, beta1 = np.array(list(TORCH.values())).T
    np.testing.assert_allclose(onecycle(1e-3, 22500)(steps), rate, rtol=1e-12)
    np.testing.assert_allclose(onecycle_beta1(22500)(steps), beta1, rtol=1e-12)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no golden values at {PUBLISHED}")
def test_every_step_of_the_published_run(float64):
    golden = np.load(PUBLISHED)
    steps = np.arange(len(golden["lr"]))
    np.testing.assert_allclose(onecycle(1e-3, len(steps))(steps), golden["lr"], rtol=1e-12)
    np.testing.assert_allclose(onecycle_beta1(len(steps))(steps), golden["beta1"], rtol=1e-12)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 10, 97, 1000])
def test_short_runs_follow_torch(total_steps, float64):
    steps = np.arange(total_steps)
    expected = [torch_rate(1.0, total_steps, step) for step in range(total_steps)]
    np.testing.assert_allclose(onecycle(1.0, total_steps)(steps), expected, rtol=1e-12)


def torch_rate(max_rate: float, total_steps: int, step: int) -> float:
    """OneCycleLR.get_lr as torch writes it, a list of phases."""
    phases = [
        (0.3 * total_steps - 1, max_rate / 25, max_rate),
        (total_steps - 1, max_rate, max_rate / 25 / 1e4),
    ]
    start = 0.0
    for end, first, last in phases:
        if step <= end or end == total_steps - 1:
            share = (step - start) / (end - start)
            return last + (first - last) / 2.0 * (math.cos(math.pi * share) + 1)
        start = end
    raise AssertionError


def test_the_last_rate_stays_and_the_precision_of_training_suffices():
    schedule = onecycle(1e-3, 97)
    assert schedule(500) == schedule(96)
    np.testing.assert_allclose(schedule(96), 4e-9, rtol=0.02)


def test_beta1_moves_against_the_rate():
    steps = np.arange(100)
    rate, beta1 = onecycle(1.0, 100)(steps), onecycle_beta1(100)(steps)
    assert np.argmax(rate) == np.argmin(beta1) == 29
    np.testing.assert_allclose([beta1[0], beta1[29], beta1[99]], [0.95, 0.85, 0.95], rtol=1e-6)


def test_warmup_rises_in_a_line_and_ends_at_zero():
    schedule = warmup_cosine(2.0, 100, 10)
    np.testing.assert_allclose([schedule(5), schedule(10), schedule(100)], [1, 2, 0], atol=1e-6)
    assert schedule(55) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warmup_that_does_not_fit_is_refused(warmup_steps):
    with pytest.raises(UserError, match="does not fit into a run of 10 steps"):
        warmup_cosine(1.0, 10, warmup_steps)
