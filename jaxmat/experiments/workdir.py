"""What every run leaves in its work directory beside checkpoints."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.data.findings import some
from jaxmat.data.rejects import Rejected
from jaxmat.errors import UserError, listed
from jaxmat.report.rows import write_rows
from jaxmat.runtime import files, hosts
from jaxmat.training import checkpoint_files
from jaxmat.values import real, shortened, whole

CONFIG, RESULT, METRICS, LOCK = "config.json", "result.json", "metrics.jsonl", "lock"
VERSIONS, LOG = "versions.json", "log.txt"
FINDINGS = "findings.json"  # remarks on the data, a list of texts
INPUTS = "inputs.json"  # digests of the files that the config names
# What shows that something was done: results, evaluations, checkpoints.
_WORK = (RESULT, METRICS, checkpoint_files.FILES)
# Of runs whose checks failed, of cells of a study that did, and of `jaxmat.fit`.
_LEFT_BEHIND = (
    *("rejected.csv", "transfer.json", "error.txt", "splits", "claims"),
    *("table.json", "start_from"),
)
_PACKAGES = ("jaxmat-transfer", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "pymatgen")
# Fields that were called otherwise in earlier versions.
_RENAMED = {"init_from": "start_from"}
# Fields that earlier versions did not have, with what they did; none of them changes a result.
_ADDED = {
    "read_seconds": 8.0,
    "read_megabytes": 1400,
    "read_workers": 0,
    "split_by": "random",
    "folds": 0,
    "fold": 0,
    "united": [],
    "leave_out_elements": "",
    "unseen": [],
}

_logger = logging.getLogger(__name__)

Record = dict[str, Any]


def refuse_other_config(workdir: Path, config: ConfigDict) -> None:
    """Checks that a work directory belongs to this config or to none; writes nothing.

    A run of another config counts once there is work of it that would be lost: a check that has
    failed leaves none.

    Raises:
        UserError: it belongs to a run with another config; the message has the differences.
    """
    file = workdir / CONFIG
    if not file.exists():
        return
    if not has_work(workdir):
        return
    try:
        written = flatten_dict(files.read_json(file), sep=".")
    except UserError as error:
        raise UserError(
            f"{error}. Bring it back from a copy, or choose another --workdir"
        ) from error
    before = {_present_name(name): value for name, value in written.items()}
    now = flatten_dict(json.loads(files.to_json(config.to_dict())), sep=".")
    for name in now.keys() - before.keys():
        before[name] = _ADDED.get(name.rpartition(".")[2])
    if differences := [
        f"{name}: {shortened(before.get(name))} there, {shortened(now.get(name))} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]:
        raise UserError(
            f"{workdir} holds a run with another config; choose another --workdir, or repeat "
            f"its config to go on with it:\n{listed(differences)}"
        )


def refuse_foreign(workdir: Path, config: ConfigDict) -> None:
    """Refuses to write among files that no run has left, but for those that the config names.

    Raises:
        UserError: there are such files; the message names some.
    """
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise UserError(f"Cannot write to --workdir={workdir}: it is not a folder")
    try:
        names = sorted(path.name for path in workdir.iterdir())
    except OSError as error:
        raise UserError(f"{workdir} cannot be read: {files.reason(error)}") from error
    if CONFIG in names and _is_run(workdir):
        return
    own = {LOCK, LOG, FINDINGS, INPUTS, VERSIONS, *_LEFT_BEHIND, *_named_in(config, workdir)}
    if others := [n for n in names if n not in own and files.UNFINISHED not in n]:
        raise UserError(
            f"{workdir} holds files that are of no run ({files.shown(some(others))}); choose a new "
            "or an empty folder as --workdir"
        )


def _is_run(workdir: Path) -> bool:
    """Whether the config in a folder is one of a run, be it damaged, and not of a model, say."""
    try:
        return "experiment" in files.read_json(workdir / CONFIG)
    except UserError:
        return (workdir / LOCK).is_file()


def _named_in(config: ConfigDict, workdir: Path) -> set[str]:
    """Returns what in a folder a config names, such as a table or a model to start from."""
    root = os.path.abspath(workdir)
    values = flatten_dict(json.loads(files.to_json(config.to_dict())), sep=".").values()
    texts = [t for v in values for t in (v if isinstance(v, list) else [v]) if isinstance(t, str)]
    below = [os.path.relpath(os.path.abspath(t), root) for t in texts if t and "\0" not in t]
    return {path.split(os.sep)[0] for path in below}


def has_work(workdir: Path) -> bool:
    """Whether something was trained or tested in a directory or in one below it."""
    return any(path.name in _WORK for path in workdir.rglob("*"))


def _present_name(field: str) -> str:
    """Returns what a field of a config is called that an earlier version may have written."""
    part, dot, name = field.rpartition(".")
    return f"{part}{dot}{_RENAMED.get(name, name)}"


@contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of a work directory, which is made where it is missing.

    The lock is the process's, not the file's: however the process ends, the lock ends with it.
    Where the file system knows no locks, there is a warning instead. Of several processes that are
    one program the first has the lock for all.

    Raises:
        UserError: another process has the directory, or it cannot be made.
    """
    if not hosts.is_first():
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"Cannot write to --workdir={workdir}: {files.reason(error)}") from error
    try:
        _take_lock(workdir, descriptor)
        yield
    finally:
        os.close(descriptor)


def _take_lock(workdir: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 1000).decode(errors="replace").strip()
        raise UserError(
            f"{workdir} is in use by another run ({holder}). Wait for its end or stop it, or "
            "choose another --workdir"
        ) from error
    except OSError as error:
        _logger.warning(
            "%s cannot be locked (%s): see to it that no other run uses it",
            *(workdir, files.reason(error)),
        )
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
    with suppress(OSError):  # it only tells others who it is
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode())


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes a work directory and writes the resolved config and the versions into it.

    Raises:
        UserError: the directory belongs to a run with another config, or cannot be made.
    """
    refuse_other_config(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / CONFIG, config.to_dict())
        write_json(workdir / VERSIONS, _versions())
    except OSError as error:
        raise UserError(f"Cannot write to --workdir={workdir}: {files.reason(error)}") from error


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Returns the result of a finished run, None where it is not finished.

    A file that cannot be read is reported: the run is finished again, from its last checkpoint.
    """
    if not (workdir / RESULT).exists():
        return None
    try:
        result = files.read_json(workdir / RESULT)
        if not isinstance(result.get("crystals"), dict):
            raise UserError(f"{workdir / RESULT} is not the result of a run")
        return result
    except UserError as error:
        _logger.warning("%s; the result is made again", error)
        return None


def write_json(file: Path, content: Any) -> None:
    """Writes a JSON file that is whole or not there, see `jaxmat.runtime.files.write_json`.

    Of several processes that are one program the first alone writes.
    """
    if not hosts.is_first():
        return
    files.write_json(file, content)


def add_findings(workdir: Path, remarks: Sequence[str]) -> None:
    """Logs remarks on the data, "" for none, and adds them, once each, to what the page shows."""
    file = workdir / FINDINGS
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    said = [remark for remark in remarks if remark]
    for remark in said:
        _logger.warning("%s.", remark)
    if new := [remark for remark in said if remark not in known]:
        write_json(file, [*known, *new])


def metrics_log(workdir: Path) -> Callable[[Record], None]:
    """Makes a log that appends records to metrics.jsonl, one JSON object a line.

    A resumed run repeats the records after its checkpoint: of two records with the same step the
    later one counts. Where the disk is full, there is a warning and records wait for the next. Of
    several processes that are one program the first alone writes.

    Returns:
        The function that writes a record; numbers that are not finite become null.
    """
    file = workdir / METRICS
    waiting: list[str] = []

    def write(record: Record) -> None:
        if not hosts.is_first():
            return
        waiting.append(files.to_json(record, indent=None) + "\n")
        try:
            with file.open("a+b") as stream:
                stream.seek(0)
                # A line that a kill or a full disk has cut short is taken away.
                stream.truncate(stream.read().rfind(b"\n") + 1)
                stream.write("".join(waiting).encode())
        except OSError as error:
            if len(waiting) == 1:
                _logger.warning(
                    "%s cannot be written (%s); tried again later", file, files.reason(error)
                )
        else:
            waiting.clear()

    return write


def read_metrics(workdir: Path) -> list[Record]:
    """Returns the records of metrics.jsonl in order of steps, of repeated steps the last.

    There are none where there is no such file yet.
    """
    if not (workdir / METRICS).exists():
        return []
    lines = (workdir / METRICS).read_text("utf-8", errors="replace").splitlines(keepends=True)
    # A last line without its end was cut short by a kill.
    records = [record for line in lines if line.endswith("\n") and (record := _record(line))]
    if (lost := sum(line.endswith("\n") for line in lines) - len(records)) > 0:
        _logger.warning("%s: %d lines are damaged and passed over", workdir / METRICS, lost)
    by_step = {record["step"]: record for record in records}
    return [by_step[step] for step in sorted(by_step)]


def _record(line: str) -> Record | None:
    """Returns the record of a line, None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(record, dict) and whole(0).holds(record.get("step"))
    return record if fits and all(v is None or real().holds(v) for v in record.values()) else None


def write_rejected(file: Path, rejected: Sequence[Rejected]) -> None:
    """Writes which rows were left out and why, where there are any; see `write_json`."""
    if rejected and hosts.is_first():
        write_rows(file, Rejected._fields, rejected)


def _versions() -> dict[str, Any]:
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "device": str(jax.devices()[0]),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
