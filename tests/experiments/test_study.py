"""The studies in their smallest form, as a user starts them: stopped, resumed, reported."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import load
from jaxmat.experiments import run
from jaxmat.report.rows import read_rows
from jaxmat.report.study.results import CellResult

ROOT = Path(__file__).parents[2]
CELLS = {
    **{"pairwise": 4, "pt_size": 6, "strategies": 6, "learning_rate": 12},
    **{"multi_property": 6, "jarvis_2d": 6},
}


# Both directions take twice as long and run the same code.
ONE_PAIR = {"study.sources": ("dielectric",), "study.targets": ("piezoelectric",)}


def get_config(name: str) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]("smoke")
    if name == "pairwise":
        config.update_from_flattened_dict(ONE_PAIR)
    return config


def finished(workdir: Path) -> dict[str, int]:
    files = workdir.glob("*/*/result.json")
    return {str(file.relative_to(workdir)): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A study that was told to stop in its second training, and what was finished by then."""
    workdir = tmp_path_factory.mktemp("study")
    result = run(
        get_config("pairwise"), workdir, stop=lambda step: step == 1 and bool(finished(workdir))
    )
    assert result is None
    return workdir, finished(workdir)


@pytest.mark.parametrize(
    "name",
    [n if n == "pairwise" else pytest.param(n, marks=pytest.mark.slow) for n in CELLS],
)
def test_a_study_runs_to_its_report(
    name: str, stopped: tuple[Path, dict[str, int]], tmp_path: Path, run_jaxmat
) -> None:
    """All in one directory: what they have in common is done once."""
    # That of strategies has another network.
    workdir, before = (tmp_path, {}) if name == "strategies" else stopped
    fewer = ONE_PAIR if name == "pairwise" else {}
    flags = [f"--config.{field}={','.join(values)}" for field, values in fewer.items()]
    done = run_jaxmat(
        "study", f"--config={name}:smoke", *flags, f"--workdir={workdir}", timeout=900
    )
    assert done.returncode == 0, done.stderr
    rows = [row for _, row in read_rows(workdir / "results.csv", CellResult._fields)]
    assert len(rows) == CELLS[name] and {row["status"] for row in rows} == {"done"}
    assert all(float(row["test_mae"]) > 0 and int(row["n_test"]) for row in rows)
    assert get_config(name).study.title in (workdir / "report.html").read_text()
    after = finished(workdir)
    assert len(before) < len(after) and (before or name == "strategies")
    assert before.items() <= after.items()  # nothing was done twice


@pytest.mark.slow
def test_pre_trainings_can_be_had_without_what_comes_after(tmp_path: Path) -> None:
    """For each target one that has not seen its labels; they are not done again by the study."""
    config = get_config("pretrain_others")
    config.study.sources = ("others",)
    assert run(config, tmp_path) == {"done": 1}
    (place,) = (tmp_path / "pretrain").iterdir()
    model = load(place / "model").model
    assert "piezoelectric" in place.name and "piezoelectric" not in model.heads
    assert model.trunk["kind"] == "cogn" and len(model.heads) == 2
    before = finished(tmp_path)
    config.job.action = "run"
    assert run(config, tmp_path) is not None
    assert before.items() < finished(tmp_path).items()
