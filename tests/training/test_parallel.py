"""Devices that share a batch, or the members of a population, do what one device would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmat.errors import UserError
from jaxmat.training.parallel import choose_placement

CASES = Path(__file__).with_name("parallel_cases.py")


# Batch norms have to know of all devices; the other trunk has none.
@pytest.fixture(scope="module", params=["cogn", pytest.param("alignn", marks=pytest.mark.slow)])
def results(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(CASES), request.param],
        env=os.environ
        | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {os.environ['XLA_FLAGS']}",
            "PYTHONPATH": str(CASES.parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def difference(one: list[float], other: list[float]) -> float:
    return float(np.max(np.abs(np.array(one) - np.array(other))))


@pytest.mark.parametrize("name", ["pmap 8", "shard_map 2"])
def test_parameters_after_21_steps_in_float64(results, name: str) -> None:
    """Weighted crystals; a last batch of three, which leaves some of 8 devices without any."""
    one, several = results["float64"]["one"], results["float64"][name]
    assert several["devices"] == int(name.split()[1])
    assert several["crystals"] == one["crystals"] == [8, 8, 3] * 7
    assert len(set(one["loss"])) == 21
    for what in ("loss", "state", "output"):
        assert difference(several[what], one[what]) < 1e-9


@pytest.mark.parametrize("name", ["pmap 2", "shard_map 8"])
def test_outputs_and_losses_in_float32(results, name: str) -> None:
    one, several = results["float32"]["one"], results["float32"][name]
    assert several["devices"] == int(name.split()[1])
    for what in ("loss", "output"):
        assert difference(several[what], one[what]) < 1e-5


def test_members_divided_among_devices(results) -> None:
    one, several = results["populations"]["one"], results["populations"]["shard_map 2"]
    assert (one["devices"], several["devices"]) == (1, 2)
    assert np.shape(one["loss"]) == (21, 4)
    for what in ("loss", "state", "output"):
        assert difference(several[what], one[what]) < 2e-9


def test_auto_takes_as_many_devices_as_have_little_padding(results) -> None:
    """Of 8; the share of real work is this number over the devices."""
    assert results["auto"] == {"0.9": 1, "1.5": 3, "2.6": 5, "3.5": 7, "8.0": 8}


@pytest.mark.parametrize(("kind", "members"), [("all", 1), ("pmap", 2)])
def test_layouts_that_there_are_not(kind: str, members: int) -> None:
    with pytest.raises(UserError, match="config.training.devices"):
        choose_placement(kind, members)


def test_auto_is_one_device_where_there_is_one() -> None:
    assert not choose_placement("auto", 1).stacked
