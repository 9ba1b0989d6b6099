"""Batch scripts are sound shell and ask for what there is."""

from __future__ import annotations

import importlib
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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_is_explained(script: Path) -> None:
    assert f"scripts/{script.name}" in (ROOT / "docs" / "clusters.md").read_text()
