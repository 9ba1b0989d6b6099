"""The program as a user starts it: one message for each mistake, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_experiment(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "run_experiment.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_quick_start_in_its_smallest_form(tmp_path: Path) -> None:
    done = run_experiment("--config=quickstart:smoke", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_mae"].keys() == {"constant", "gaussian_process", "scratch", "finetuned"}
    assert result["crystals"] == {"train": 32, "validation": 16, "test": 16}
    assert "from random weights" in done.stderr
    assert "test MAE" in (tmp_path / "comparison.md").read_text()
    for name in ("parity.png", "learning_curves.png"):
        assert (tmp_path / name).stat().st_size > 0
    runs = {name: tmp_path / "seed_0" / name for name in ("finetuned", "scratch")}
    splits = {name: (run / "split.json").read_text() for name, run in runs.items()}
    assert splits["finetuned"] == splits["scratch"]
    # Of the crystals that it is tested on its model has not seen the labels.
    seen = json.loads((runs["finetuned"] / "result.json").read_text())["seen_before"]
    assert "dielectric_constant" not in seen["labels"]


def test_a_mistake_gets_one_message(tmp_path: Path) -> None:
    """Here of the program, with its exit code; tests/commands has the kinds of mistakes."""
    done = run_experiment("--config=scratch", "--config.data.path=no.csv", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "config.data.target is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_gets_one_message() -> None:
    program = """
import errno
from jaxmat.commands.program import run_program

def main(argv):
    raise OSError(errno.ENOSPC, "No space left on device", "predictions.csv")

run_program(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "error: predictions.csv: no space left on device. What was written" in done.stderr
    assert "Traceback" not in done.stderr
