"""Faults in short: one stop and one kill of a program, one damage, one full disk."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import damage, faults
from jaxmat.experiments import run
from jaxmat.runtime.stopping import STOPPED


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left alone."""
    workdir = tmp_path_factory.mktemp("whole")
    run(faults.small_config(), workdir)
    return workdir


def command(workdir: Path) -> list[str]:
    """The same run as a program."""
    table = ["path=bundled:dielectric", "target=poly_total", "unit=1"]
    fields = [f"--config.data.{field}" for field in table]
    config = ["--config=configs/scratch.py:smoke", "--config.training.epochs=4", *fields]
    return [sys.executable, "run_experiment.py", *config, f"--workdir={workdir}"]


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_ends_as_the_one_left_alone(
    whole: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    states = workdir / "checkpoints" / "last"
    code = faults.interrupt(command(workdir), signal.SIGTERM, (states / "2").exists)
    said = workdir.with_suffix(".log").read_text()
    assert code == STOPPED, said
    assert "Stopped by SIGTERM at step" in said and "Traceback" not in said
    code = faults.interrupt(command(workdir), signal.SIGKILL, (states / "6").exists)
    assert code == -signal.SIGKILL
    faults.complete(command(workdir))
    assert json.loads((workdir / "config.json").read_text()) == faults.small_config().to_dict()
    assert faults.differences(whole, workdir) == []


@pytest.mark.slow
def test_damage_loses_nothing(whole: Path, tmp_path: Path) -> None:
    rows = list(faults.damage_rows(tmp_path, whole, ["truncated"]))
    assert [row.trial for row in rows] == ["newest state damaged: truncated", "all states damaged"]
    assert [row.lost for row in rows] == [[], []]


def test_what_is_lost_is_seen(whole: Path, tmp_path: Path) -> None:
    assert faults.differences(tmp_path / "nowhere", whole)

    def assert_seen(spoil: Callable[[Path], object], name: str) -> None:
        found = tmp_path / "found"
        shutil.copytree(whole, found)
        assert faults.differences(whole, found) == []
        spoil(found / name)
        (lost,) = faults.differences(whole, found)
        assert name in lost
        shutil.rmtree(found)

    def worsen(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"test_mae": 0.0}))

    def reorder(file: Path) -> None:
        file.write_text("\n".join(file.read_text().splitlines()[::-1]))

    def exchange(place: Path) -> None:
        shutil.rmtree(place)
        shutil.copytree(place.with_name("6"), place)

    assert_seen(worsen, "result.json")
    assert_seen(reorder, "predictions.csv")
    assert_seen(Path.unlink, "split.json")
    assert_seen(exchange, "checkpoints/last/8")


def test_a_full_disk_loses_nothing(whole: Path, tmp_path: Path) -> None:
    for row in faults.full_disk_rows(tmp_path, whole):
        assert row.lost == [], row.trial


def test_a_small_disk_can_be_filled_and_freed(tmp_path: Path) -> None:
    with damage.small_disk(tmp_path) as disk:
        if disk.kind == "failing writer":
            pytest.skip("no tmpfs can be mounted")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "file").write_bytes(bytes(10_000))
        disk.free()
        (disk.folder / "file").write_bytes(bytes(10_000))
