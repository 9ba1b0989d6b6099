"""Kills, stops and damages runs and fills their disk, and looks for what was lost.

    python -m benchmarks.faults --json=FILE

Every disturbed run is gone on with to its end and compared with one that was left alone: numbers
of the results, predictions, parameters and whole training states, bit for bit. Takes about ten
minutes on two cores. Exits with 1 where anything was lost. As root the full disk is a real one, a
small tmpfs, else a writer that fails.
"""

from __future__ import annotations

import functools
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks.damage import DAMAGES, Disk, contents, flip, small_disk
from jaxmat.bundles.bundle import FOLDER, read_bundle
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.workdir import RESULT
from jaxmat.report.tables import format_table
from jaxmat.runtime.stopping import SIGNALS, STOPPED
from jaxmat.training import checkpoint_files

ROOT = Path(__file__).parents[1]
KILLS = 20
_LONGEST = 600  # seconds that a single run may take
_STOPPED_AT, _LAST_STEP = 6, 8  # of the run that is damaged; it saves at every second step


class Row(NamedTuple):
    """One kind of trial.

    Attributes:
        trial: what was done.
        times: how often.
        note: what else there is to know.
        lost: what differs from the run that was left alone, in words; nothing should.
    """

    trial: str
    times: int
    note: str
    lost: list[str]


def study_command(workdir: Path) -> list[str]:
    """Returns the command of the study that is disturbed: four small cells and a pre-training.

    Args:
        workdir: its working directory.
    """
    config = [
        "--config=configs/pairwise.py:smoke",
        "--config.study.sources=dielectric",
        "--config.study.targets=piezoelectric",
        "--config.job.population=1",
    ]
    return [sys.executable, "run_experiment.py", *config, f"--workdir={workdir}"]


def trials(folder: Path) -> Iterator[Row]:
    """Makes all trials.

    Args:
        folder: where there is room for some runs.
    """
    expected = folder / "undisturbed"
    complete(study_command(folder / "compiled"))  # fills the compilation cache
    began = time.monotonic()
    complete(study_command(expected))
    duration = time.monotonic() - began
    moment = functools.partial(random.Random(0).uniform, 0.0, duration)
    for number, times in ((signal.SIGKILL, KILLS), *((each, 2) for each in SIGNALS)):
        note, lost = disturb(folder / number.name, number, times, moment, expected)
        yield Row(f"{number.name} to a study, then resumed", times, note, lost)
    run(small_config(), folder / "whole")
    yield from damage_rows(folder, folder / "whole", DAMAGES)
    yield from full_disk_rows(folder, folder / "whole")


def disturb(
    folder: Path,
    number: signal.Signals,
    times: int,
    moment: Callable[[], float],
    expected: Path,
) -> tuple[str, list[str]]:
    """Interrupts a study and goes on with it, again and again.

    Args:
        folder: gets the studies, each begun when the one before is done.
        number: what interrupts them.
        times: how often; a signal that comes too late does not count.
        moment: gives the seconds after the start of the program.
        expected: an undisturbed study.

    Returns:
        What else there is to know, and what was lost.
    """
    lost: list[str] = []
    codes: list[int] = []
    studies = 1
    while len(codes) < times:
        workdir = folder / str(studies)
        code = interrupt(study_command(workdir), number, after(moment()))
        if code == 0:
            lost += differences(expected, workdir)
            studies += 1
            continue
        codes.append(code)
        if code not in (-number, STOPPED):
            lost.append(f"exit code {code}: {_log(workdir).read_text()[-500:]}")
    complete(study_command(folder / str(studies)))
    lost += differences(expected, folder / str(studies))
    endings = ", ".join(f"{code}: {codes.count(code)}" for code in sorted(set(codes)))
    return f"{studies} studies, exit codes {endings}", lost


def after(seconds: float) -> Callable[[], bool]:
    """Returns what says whether the time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def interrupt(command: Sequence[str], number: signal.Signals, when: Callable[[], bool]) -> int:
    """Runs a program and sends it a signal.

    Args:
        command: the program; its last argument is --workdir.
        number: the signal.
        when: asked again and again whether it is time.

    Returns:
        The exit code, minus the signal where that ended it.
    """
    log = _log(Path(command[-1].removeprefix("--workdir=")))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
        try:
            while process.poll() is None and not when():
                time.sleep(0.01)
            process.send_signal(number)  # does nothing to a process that has ended
            return process.wait(_LONGEST)
        finally:
            process.kill()


def complete(command: Sequence[str]) -> None:
    """Runs a program to its end.

    Raises:
        UserError: it ends with another exit code than 0.
    """
    code = interrupt(command, signal.SIGKILL, after(_LONGEST))
    if code:
        raise UserError(f"exit code {code} of {' '.join(command)}")


def _log(workdir: Path) -> Path:
    return workdir.with_suffix(".log")


def differences(expected: Path, found: Path) -> list[str]:
    """Compares what two runs or studies have left.

    Args:
        expected: working directory of the one that was left alone.
        found: of the one that was disturbed.

    Returns:
        What is missing or differs in `found`, in words.
    """
    lost = []
    for result in sorted(expected.rglob(RESULT)):
        place = result.parent.relative_to(expected)
        names = [RESULT, "predictions.csv", "split.json", FOLDER]
        for kind in ("best", "last"):
            steps = [path.name for path in (result.parent / "checkpoints" / kind).glob("*")]
            names += [f"checkpoints/{kind}/{max(steps, key=int)}"] if steps else []
        for name in names:
            ours, theirs = expected / place / name, found / place / name
            if ours.exists() and not theirs.exists():
                lost.append(f"{theirs} is missing")
            elif ours.exists() and _leaves(_content(ours)) != _leaves(_content(theirs)):
                lost.append(f"{theirs} differs")
    return lost or ([] if any(expected.rglob(RESULT)) else [f"{expected} has no result"])


def _content(path: Path) -> Any:
    """What has to be the same in every run: all but seconds and paths."""
    if path.name == RESULT:
        result = json.loads(path.read_text())
        return json.dumps({k: value for k, value in result.items() if not k.endswith("seconds")})
    if path.is_file():
        return path.read_bytes()
    if path.name == FOLDER:
        return read_bundle(path).variables
    return checkpoint_files.read_items(path, checkpoint_files.item_names(path))


def _leaves(tree: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Maps the names of a tree to dtype, shape and bits."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in named}
    return {name: (leaf.dtype.str, leaf.shape, leaf.tobytes()) for name, leaf in arrays.items()}


def damage_rows(folder: Path, expected: Path, names: Iterable[str]) -> Iterator[Row]:
    """Damages the newest state of a stopped run in several ways, then all of its states.

    Args:
        folder: gets the runs.
        expected: an undisturbed run of `small_config`.
        names: of the damages.
    """
    stopped = folder / "stopped"
    run(small_config(), stopped, stop=lambda step: step == _STOPPED_AT)
    for name in names:
        workdir = folder / name.replace(" ", "_")
        shutil.copytree(stopped, workdir)
        newest = workdir / "checkpoints" / "last" / str(_STOPPED_AT)
        DAMAGES[name](newest)
        lost = _go_on_damaged(workdir, newest) + differences(expected, workdir)
        yield Row(f"newest state damaged: {name}", 1, "reported, kept, passed over", lost)
    for place in (stopped / "checkpoints" / "last").iterdir():
        flip(place / "about.json")
    yield Row("all states damaged", 1, "refused, they are named", _refusal(stopped))


def _go_on_damaged(workdir: Path, newest: Path) -> list[str]:
    before = contents(newest)
    with _warnings() as said:
        run(small_config(), workdir)
    lost = [] if contents(newest) == before else [f"{newest} was changed"]
    reported = any(str(newest) in word and "damaged" in word for word in said)
    return lost if reported else [*lost, f"{newest} was not reported"]


def _refusal(workdir: Path) -> list[str]:
    before = contents(workdir / "checkpoints")
    try:
        run(small_config(), workdir)
    except UserError as error:
        kept = contents(workdir / "checkpoints") == before
        return [] if kept and "every checkpoint is damaged" in str(error) else [str(error)]
    return [f"{workdir} was not refused"]


def full_disk_rows(folder: Path, expected: Path) -> Iterator[Row]:
    """Fills the disk while a run is under way, for a while and to the end.

    Args:
        folder: gets the runs.
        expected: an undisturbed run of `small_config`.
    """
    for name, until in (("for some savings", _LAST_STEP - 1), ("to the end, then room", None)):
        with small_disk(folder / "disk") as disk:
            lost = _fill_during_run(disk, disk.folder / "run", until)
            yield Row(
                f"disk full {name}", 1, disk.kind, lost + differences(expected, disk.folder / "run")
            )


def _fill_during_run(disk: Disk, workdir: Path, until: int | None) -> list[str]:
    """Fills the disk at a step, makes room at another; returns what was lost of what was saved."""
    checkpoints = workdir / "checkpoints"
    saved: dict[Path, bytes] = {}
    lost: list[str] = []

    def make_room() -> None:
        if contents(checkpoints) != saved:
            lost.append(f"{checkpoints} was changed while the disk was full")
        disk.free()

    def watch(step: int) -> bool:
        if step == 3:
            saved.update(contents(checkpoints))
            disk.fill()
        if step == until:
            make_room()
        return False

    if until is not None:
        run(small_config(), workdir, stop=watch)
        return lost
    try:
        run(small_config(), workdir, stop=watch)
        lost.append(f"{workdir}: no error, although the last state could not be written")
    except UserError as error:
        if str(checkpoints) not in str(error):
            lost.append(f"the error does not name {checkpoints}: {error}")
    make_room()
    run(small_config(), workdir)
    return lost


def small_config() -> ConfigDict:
    """Returns the config of a run of eight steps."""
    config = defaults.scratch(path="bundled:dielectric", target="poly_total", unit="1")
    config = defaults.variant(config, "smoke")
    config.training.epochs = 4
    return config


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what the checkpoints say."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("jaxmat.training.checkpoints")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _main(argv: list[str]) -> int:
    refuse_arguments(argv, "The only flag is --json=FILE.")
    began = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in trials(Path(folder)):
            rows.append(row)
            print(f"{time.monotonic() - began:6.0f} s  {row.trial}", file=sys.stderr)
            for loss in row.lost:
                print(f"          LOST: {loss}", file=sys.stderr)
    table = [row._asdict() | {"lost": len(row.lost) or "nothing"} for row in rows]
    print(format_table(table))
    content = {"seconds": time.monotonic() - began, "trials": [row._asdict() for row in rows]}
    Path(flags.FLAGS.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    flags.DEFINE_string("json", None, "File to write the trials to.", required=True)
    run_program(_main)
