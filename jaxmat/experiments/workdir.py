"""What every run leaves in its working directory beside checkpoints."""

from __future__ import annotations

import csv
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.data.rejects import Rejected
from jaxmat.errors import UserError, listed

CONFIG, RESULT, METRICS = "config.json", "result.json", "metrics.jsonl"
_PACKAGES = ("jaxmat-transfer", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "pymatgen")


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes a working directory and writes the resolved config and the versions into it.

    Raises:
        UserError: the directory belongs to a run with another config, or cannot be made.
    """
    resolved = config.to_dict()
    file = workdir / CONFIG
    if file.exists():
        before = flatten_dict(json.loads(file.read_text(encoding="utf-8")), sep=".")
        now = flatten_dict(json.loads(json.dumps(resolved)), sep=".")
        if differences := [
            f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]:
            raise UserError(
                f"{workdir} holds a run with another config; choose another --workdir, or repeat "
                f"its config to go on with it:\n{listed(differences)}"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(file, resolved)
        write_json(workdir / "versions.json", _versions())
    except OSError as error:
        raise UserError(f"Cannot write to --workdir={workdir}: {error}") from error


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Returns the result of a finished run, None where it is not finished."""
    file = workdir / RESULT
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write_json(file: Path, content: Any) -> None:
    """Writes a JSON file that is whole or not there."""
    unfinished = file.with_name(file.name + ".unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl in order of steps, of repeated steps the last."""
    lines = (workdir / METRICS).read_text(encoding="utf-8").splitlines()
    records = {record["step"]: record for record in map(json.loads, lines)}
    return [records[step] for step in sorted(records)]


def write_rejected(file: Path, rejected: Sequence[Rejected]) -> None:
    """Writes which rows were left out and why, where there are any."""
    if rejected:
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([Rejected._fields, *rejected])


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
