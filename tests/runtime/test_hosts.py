"""Two processes do what one with as many devices does, and stop and go on together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmat import experiments
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.runtime import hosts
from jaxmat.runtime.stopping import STOPPED
from jaxmat.training.checkpoints import load_variables
from jaxmat.training.parallel import choose_placement

ROOT = Path(__file__).parents[2]
JAXMAT_TRAIN = [str(Path(sys.executable).with_name("jaxmat")), "train"]
RUN = [
    "run_experiment.py",
    "--config=configs/scratch.py:smoke",
    "--config.data.path=bundled:dielectric",
    "--config.data.target=poly_total",
    "--config.data.unit=1",
    # 32 crystals: an epoch of 10, 10, 10 and 2.
    "--config.training.batch_size=10",
    "--config.training.drop_last=False",
    "--config.training.epochs=8",
    "--config.training.evaluate_every=2",
    "--config.training.save_every=4",
]


def start(*arguments: str, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ['XLA_FLAGS']}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        # With the allocator's setting, without which the program would start anew.
        env=os.environ
        | {"XLA_FLAGS": flags, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--workdir={workdir}", "--distributed", "--processes=2"]
    # One by each of the two ways to start a run.
    return [
        start(*program, *RUN[1:], *flags, f"--process={i}", JAX_COORDINATOR_ADDRESS=address)
        for i, program in enumerate((["run_experiment.py"], JAXMAT_TRAIN))
    ]


def wait_for(file: Path, processes: list[subprocess.Popen[str]]) -> None:
    while not file.exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def ends(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Returns exit codes and what was said; none of them is left behind."""
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def files(workdir: Path) -> set[str]:
    """Names of the files, but for those of checkpoints."""
    paths = (path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != "checkpoints"}


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_do_what_one_does(tmp_path: Path) -> None:
    codes, said = ends([start(*RUN, f"--workdir={tmp_path / 'one'}", devices=2)])
    assert codes == [0], said

    workdir = tmp_path / "two"
    processes = start_two(workdir)
    wait_for(workdir / "metrics.jsonl", processes)
    processes[1].send_signal(signal.SIGUSR1)
    codes, said = ends(processes)
    assert codes == [STOPPED, STOPPED], said
    assert "SIGUSR1" in said[1] and "Stopped" not in said[1]
    step = int(said[0].split("at step ")[1].split()[0])
    assert "Stopped by a signal to another process" in said[0] and 8 <= step < 32
    assert (workdir / "checkpoints" / "last" / str(step)).is_dir()

    codes, said = ends(start_two(workdir))
    assert codes == [0, 0], said
    assert "test MAE" in said[0] and "MAE" not in said[1]
    assert files(workdir) == files(tmp_path / "one")
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("one", "two")]
    for name in ("seconds", "compiling_seconds"):
        assert results[1].pop(name) != results[0].pop(name)
    numbers = [[v for v in result.values() if isinstance(v, float)] for result in results]
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-5)
    for last in ("one", "two"):
        assert (tmp_path / last / "checkpoints" / "last" / "32").is_dir()
    one, two = (
        load_variables(tmp_path / run / "checkpoints" / "last" / "32")[0] for run in ("one", "two")
    )
    for leaf, other in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(other, leaf, rtol=0, atol=1e-5)


def test_processes_that_find_no_others_are_told_what_to_do(tmp_path: Path) -> None:
    codes, said = ends([start(*RUN, f"--workdir={tmp_path}", "--distributed")])
    assert codes == [2]
    assert "JAX_COORDINATOR_ADDRESS" in said[0] and "Traceback" not in said[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["one", "pmap"])
def test_processes_share_a_training_by_shard_map_alone(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert choose_placement("auto", 1, lambda shards: 0.0).axis_name is not None
    with pytest.raises(UserError, match="shard_map"):
        choose_placement(kind, 1)
    with pytest.raises(UserError, match="population"):
        choose_placement("auto", 2)


def test_processes_share_no_study_and_no_population(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    population = defaults.scratch()
    population.population = 2
    for config in (population, defaults.study("a study"), defaults.evaluate()):
        with pytest.raises(UserError, match="one training"):
            experiments.run(config, tmp_path)
    assert not any(tmp_path.iterdir())


def test_one_process_agrees_with_itself() -> None:
    agree = hosts.agreement()
    assert [agree(told) for told in (False, True, False)] == [False, True, False]
    hosts.require_same("anything", "is the same")
    assert hosts.is_first()
