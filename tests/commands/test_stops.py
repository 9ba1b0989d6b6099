"""Signals end commands cleanly: exit code 4, and no output that is not whole."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jaxmat.commands import embed, predict, suggest
from jaxmat.commands.command import execute
from jaxmat.data import reading
from jaxmat.errors import UserError
from jaxmat.runtime.stopping import STOPPED, Stopped

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "bundles" / "v1"


@pytest.mark.parametrize("module", [predict, embed])
def test_a_signal_gives_up_what_is_under_way(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch: Callable[..., Iterator[Any]] = module.watch

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for chunk in watch(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            yield chunk

    monkeypatch.setattr(module, "watch", interrupted)
    (tmp_path / "a.xyz").write_text(
        '2\nLattice="5.6 0 0 0 5.6 0 0 0 5.6"\nNa 0 0 0\nCl 2.8 2.8 2.8\n'
    )
    output = tmp_path / ("out.npz" if module is embed else "out.csv")
    command = ["jaxmat", f"--model={MODEL}", f"--input={tmp_path / 'a.xyz'}", f"--output={output}"]
    with pytest.raises(Stopped, match="SIGTERM"):
        execute(module.COMMAND, command)
    left = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".json"))
    if module is embed:
        assert left == ["a.xyz"]
        return
    partial, _ = left
    assert partial.startswith(".out.csv.") and partial.endswith(".partial")
    monkeypatch.undo()
    execute(module.COMMAND, [*command, "--resume"])
    assert output.read_text().count("\n") == 2
    assert not list(tmp_path.glob(".*"))


_TABLE = ["--data=bundled:dielectric", "--target=poly_total", "--unit=1", "--workdir=run"]
_FROM = f"--model={MODEL}", "--input=bundled:dielectric"
READING = {
    "predict": [*_FROM, "--output=out.csv"],
    "embed": [*_FROM, "--output=out.npz"],
    "suggest": [*_FROM, "--output=out.csv"],
    "unite": ["--tables=bundled", "--output=out.json.gz"],
    "train": _TABLE,
    "finetune": [*_TABLE, f"--start_from={MODEL}"],
    "evaluate": [*_TABLE, f"--model={MODEL}"],
    "choose": [*_TABLE, f"--start_from={MODEL}"],
}


@pytest.mark.parametrize("verb", READING)
def test_a_signal_ends_the_wait_for_what_is_read(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be heard of when a chunk, all of a table or even all of the work was done."""
    monkeypatch.chdir(tmp_path)
    # Where others have left what they read of the table, it is not read again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    rows = reading._run_here

    def slow(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(rows(*arguments)):
            if number == 3:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
                time.sleep(60)
                pytest.fail("nobody heard the signal")
            yield row

    monkeypatch.setattr(reading, "_run_here", slow)
    # The model has no process on descriptors, for want of which nothing would be read.
    monkeypatch.setattr(suggest, "_process", lambda *_: {})
    command = importlib.import_module(f"jaxmat.commands.{verb}").COMMAND
    try:
        code = execute(command, [f"jaxmat {verb}", *READING[verb]])
    except Stopped:
        code = STOPPED
    assert code == STOPPED
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_the_building_of_graphs(workers: int, tmp_path: Path) -> None:
    """What is built by then is kept."""
    program = f"""
import logging, os, signal, threading, pathlib
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data import graphs
from jaxmat.data.tables import read_table
from jaxmat.runtime.stopping import Stopped, stop_on_signals

watch = graphs._watch
def told(results, total):
    for result in watch(results, total):
        yield result
        os.kill(os.getpid(), signal.SIGTERM)
graphs._watch = told
graphs._JOB_SITES = 200
table = read_table("bundled:dielectric")
place = pathlib.Path({str(tmp_path)!r})
def stored():
    settings = GraphSettings()
    return graphs.stored_graphs(table.ids, table.contents, settings, place, {workers})
try:
    with stop_on_signals():
        stored()
except Stopped:
    (store,) = place.iterdir()
    print("stopped", len(graphs.open_store(store)) < len(table.ids))
graphs._watch = watch
print(len(stored()) == len(table.ids))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["stopped True", "True"], done.stderr


@pytest.mark.parametrize("module", [predict, embed])
def test_an_output_is_never_an_input(module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a,b.csv").write_text("file,gap\n")
    (tmp_path / "b.cif").write_text("mine")
    flags = [f"--model={MODEL}", f"--input={tmp_path / 'a,b.csv'},{tmp_path}"]
    for name, text in (("a,b.csv", "file,gap\n"), ("b.cif", "mine")):
        with pytest.raises(UserError, match=r"would be lost|written as \*\.npz"):
            execute(module.COMMAND, ["jaxmat", *flags, f"--output={tmp_path / name}"])
        assert (tmp_path / name).read_text() == text


def test_a_program_that_is_stopped_says_so() -> None:
    program = """
import signal
from jaxmat.commands.program import run_program
from jaxmat.runtime.stopping import Stopped

def main(argv):
    raise Stopped(signal.SIGTERM)

run_program(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == STOPPED
    assert "Stopped by SIGTERM" in done.stderr and "Traceback" not in done.stderr


INTERRUPTED = """
import jax, os, signal, sys, threading
from jaxmat.experiments import defaults, run, training_run

# A shell lets what it starts in the background ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
fit, sent = training_run.fit, []

def interrupt(event, seconds, **_):
    # A program is about to be compiled; that takes longer than this.
    if event.endswith("jaxpr_to_mlir_module_duration") and not sent:
        sent.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start())

def listening(*arguments, **options):
    jax.monitoring.register_event_duration_secs_listener(interrupt)
    return fit(*arguments, **options)

training_run.fit = listening
fields = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
run(defaults.variant(defaults.scratch(**fields), "smoke"), sys.argv[1])
"""


@pytest.mark.slow
def test_an_interrupt_from_python_saves_and_ends_without_a_crash(tmp_path: Path) -> None:
    """Where it came in the middle of compiling, the process ended with a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert list((tmp_path / "run" / "checkpoints" / "last").iterdir())
