"""Batch scripts are sound shell and ask for what there is."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_fields_are_those_of_the_config(script: Path) -> None:
    text = script.read_text()
    (name,) = re.findall(r"--config=(\S+)", text)
    spec = importlib.util.spec_from_file_location("config", ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    fields = re.findall(r"--config\.([\w.]+)=", text)
    assert fields
    for field in fields:
        reduce(lambda part, key: part[key], field.split("."), config)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_is_explained(script: Path) -> None:
    assert f"scripts/{script.name}" in (ROOT / "docs" / "clusters.md").read_text()
