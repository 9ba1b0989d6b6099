"""Batch scripts are sound shell and ask for what there is."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from jaxmat.commands.command import execute

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_command_line_is_understood(script: Path, monkeypatch, capsys) -> None:
    """Whichever of the two ways to start a run a script has."""
    monkeypatch.chdir(ROOT)
    text = script.read_text().replace("\\\n", " ")
    ((program, flags),) = re.findall(r"(jaxmat \w+|run_experiment\.py)((?: +--[^\n]+))", text)
    given = re.findall(r'--[\w.]+(?:="[^"]*"|=[^\s"]+)?', flags)
    assert len(given) > 3 and any(flag.startswith("--workdir=") for flag in given)
    module = {"run_experiment.py": "experiment"}.get(program, program.rpartition(" ")[2])
    command = importlib.import_module(f"jaxmat.commands.{module}").COMMAND
    # A flag or field that there is not, or a value of another type, is a UserError.
    assert execute(command, [program, *given, "--print_config"]) is None
    assert "--config.experiment=" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script",
    [script for script in SCRIPTS if script.suffix == ".sbatch"],
    ids=lambda path: path.name,
)
def test_tasks_get_the_cores_that_a_job_asks_for(script: Path, tmp_path: Path) -> None:
    """Since SLURM 22.05 srun does not take them from the job."""
    asked = re.findall(r"#SBATCH --cpus-per-task=(\d+)", script.read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$SRUN_CPUS_PER_TASK"\n')
    (tmp_path / "srun").chmod(0o755)
    told = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": asked[0]}
    done = subprocess.run(
        ["bash", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=told
    )
    assert done.stdout.split() == asked


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_is_explained(script: Path) -> None:
    assert f"scripts/{script.name}" in (ROOT / "docs" / "clusters.md").read_text()
