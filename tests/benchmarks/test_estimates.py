"""Estimates of time beside the truth: what is run, and what is read of its logs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.estimates import COMMANDS, Estimate, read_estimates
from jaxmat import experiments
from jaxmat.commands.command import execute

LOG = """\
12:00:00 about 40 s: 300 steps of 0.13 s, with evaluations; compiling comes on top
12:00:50 training: estimated at 40 s, took 50 s (compiling not counted)
12:00:51 training 2 of 2, about 55 s left: scratch (seed 0)
12:02:00 2 trainings: estimated at 55 s, took 100 s (compiling not counted)
"""


def test_estimates_are_read_with_the_truth(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(LOG)
    near, far = read_estimates("quick start", tmp_path / "log.txt")
    assert near == Estimate("quick start", "training", 40.0, 50.0) and not near.is_far_off
    assert far == Estimate("quick start", "2 trainings", 55.0, 100.0) and far.is_far_off
    assert not Estimate("study", "training", 1.0, 4.0).is_far_off  # too short to be judged


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("small", [False, True])
def test_commands_have_configs(name: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(experiments, "run", lambda *given: ran.append(given))
    (verb, *arguments), less = COMMANDS[name]
    command = importlib.import_module(f"jaxmat.commands.{verb}").COMMAND
    options = [*arguments, *(less if small else ()), "--workdir=DIR"]
    assert execute(command, [f"jaxmat {verb}", *options]) is None
    assert len(ran) == 1
