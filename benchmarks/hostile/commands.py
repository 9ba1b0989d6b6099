"""Command lines: every verb with what is wrong in place of what it needs."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from benchmarks.hostile.crystals import CIF, table
from benchmarks.hostile.models import EXAMPLE
from benchmarks.hostile.trial import Trial, Wrong
from jaxmat.bundles.bundle import Bundle, read_bundle, save_bundle
from jaxmat.bundles.intervals import INTERVALS
from jaxmat.commands.command import execute
from jaxmat.crystals.descriptors import descriptor_blocks
from jaxmat.crystals.graph import build_graphs
from jaxmat.training.gaussian_process import fit

_TABLE = {"data": "table", "target": "gap", "unit": "1"}
# What each verb is given: flag → what it is for. The value of a flag that is not one of these kinds
# stands for itself.
_LINES: dict[str, dict[str, str]] = {
    "predict": {"model": "model", "input": "crystals", "output": "new.csv"},
    "embed": {"model": "model", "input": "crystals", "output": "new.npz"},
    "suggest": {
        "model": "process",
        "input": "crystals",
        "labelled": "crystals",
        "output": "new.csv",
    },
    "inspect": {"": "model"},
    "convert": {"input": "model", "output": "new.npz"},
    "unite": {"tables": "tables", "output": "new.json.gz"},
    "train": {
        "config": "scratch:smoke",
        "data": "table",
        "workdir": "new",
        "target": "gap",
        "unit": "1",
    },
    "finetune": {
        "start_from": "model",
        "data": "table",
        "workdir": "new",
        "target": "gap",
        "unit": "1",
    },
    "evaluate": {
        "model": "model",
        "data": "table",
        "workdir": "new",
        "target": "gap",
        "unit": "1",
    },
    "choose": {
        "candidates": "model",
        "data": "table",
        "workdir": "new",
        "target": "gap",
        "unit": "1",
    },
    "study": {"config": "pairwise:smoke", "data": "tables", "workdir": "new"},
}
_KINDS = ("model", "process", "crystals", "table", "tables")
# Values of flags that no verb can do anything with.
_VALUES: dict[str, tuple[str, ...]] = {
    "predict": (
        *("--read_seconds=0", "--read_seconds=nan", "--read_seconds=x", "--read_megabytes=1e3"),
        *("--read_megabytes=1", "--read_workers=-1", "--resume=perhaps", "--model=", "--input="),
        *("--output=", "--output", "--out=x", "extra", "--input=,", "--model=,"),
    ),
    "suggest": (
        *("--number=0", "--number=1.5", "--goal=best", "--goal=nan", "--goal=maximum"),
        *("--goal=1", "--best=x", "--property=other", "--goal=minimum --best=inf"),
    ),
    "convert": ("--properties=a", "--units=eV", "--targets_min=x"),
    "inspect": ("a b c", "--x"),
    "unite": ("--properties=none", "--output=x.csv", "--output=no/x.json.gz", "--tables="),
    "train": (
        *("--config=", "--config=nothing", "--config=scratch:x", "--config.seed=x", "--unit="),
        *("--config.training.learning_rate=nan", "--config.training.epochs=1.5", "--config.x=1"),
        *("--config.training.drop_last=perhaps", "--config.data.n_test=-1", "--processes=x"),
        *("--config.network.trunk.width=0", "--config.training=1", "--config.data.split_by=x"),
        *("--workdir=", "--target=other", "--target=", "--print_config=3", "--seed=1"),
    ),
    "choose": ("--minutes=x", "--minutes=-1", "--start_from=,", "--config.folds=1"),
    "study": (
        *("--config.study.trials=1", "--config.study.trials=(-1,)", "--config.study.targets=3"),
        *("--config.job.cells=3", "--config.job.cells=2/1", "--config.job.cells=x/y"),
        *("--config.job.action=dance", "--config.study.seeds=x", "--config.job.published=nowhere"),
        *("--config.study.learning_rates=(nan,)", "--config.study.target_sizes=(1,)"),
    ),
}


def commands() -> Iterator[Trial]:
    """Yields trials of command lines."""
    for verb, line in _LINES.items():
        for flag, kind in line.items():
            if kind in _KINDS:
                for what, put in _STRANGE.items():
                    yield Trial(f"{verb} --{flag}: {what}", _strange(verb, flag, put))
            elif kind.startswith("new"):
                for what, put in _TAKEN.items():
                    yield Trial(f"{verb} --{flag}: {what}", _taken(verb, flag, put))
        for values in _VALUES.get(verb, ()):
            yield Trial(f"{verb} {values}", _valued(verb, values.split(" ")))


def run(verb: str, folder: Path, changed: dict[str, str], more: list[str]) -> None:
    """Runs a verb with what it needs, but for what is changed.

    Args:
        verb: of the command.
        folder: where what it needs is made.
        changed: flag → value in place of the one that is right.
        more: arguments on top.

    Raises:
        UserError: the verb refuses them.
    """
    line = {flag: _given(kind, folder) for flag, kind in _LINES[verb].items()} | changed
    given = [f"--{flag}={value}" if flag else value for flag, value in line.items()]
    execute(import_module(f"jaxmat.commands.{verb}").COMMAND, [f"jaxmat {verb}", *given, *more])


def _given(kind: str, folder: Path) -> str:
    """Makes what a flag is for; returns its value."""
    if kind in ("model", "process"):
        save_bundle(folder / "good", _network() if kind == "model" else _with_process())
        return str(folder / "good")
    if kind == "crystals":
        (folder / "good.cif").write_text(CIF)
        return str(folder / "good.cif")
    if kind == "table":
        (folder / "good.json").write_text(json.dumps(table([0.1 * i for i in range(30)])))
        return str(folder / "good.json")
    if kind == "tables":
        (folder / "tables" / "splits").mkdir(parents=True, exist_ok=True)
        (folder / "tables" / "gap.json").write_text(json.dumps(table([1.5, 2.5])))
        about = {"target_column": "gap", "unit": "eV"}
        (folder / "tables" / "splits" / "gap.json").write_text(json.dumps(about))
        return str(folder / "tables")
    return str(folder / kind) if kind.startswith("new") else kind


def _network() -> Bundle:
    """Returns a model that can be asked about any element."""
    bundle = read_bundle(EXAMPLE)
    return bundle._replace(about=bundle.about | {"elements": None})


@cache
def _with_process() -> Bundle:
    """Returns the same with a Gaussian process on descriptors, of labels that are made up."""
    bundle, crystal = _network(), Structure.from_str(CIF, "cif")
    labels = np.linspace(-1.0, 1.0, 12)
    cells = [crystal.copy().apply_strain(0.1 * label) for label in labels]
    descriptors = [graph.descriptors for graph in build_graphs(cells, bundle.model.graph)]
    (name,) = bundle.model.heads
    process = fit(np.stack(descriptors), labels, descriptor_blocks()).process
    width = {"factor": 1.6, "method": "validation", "process_labels": len(labels)}
    calibration = bundle.about["calibration"][name] | width
    return bundle._replace(
        variables={**bundle.variables, INTERVALS: {name: process}},
        about=bundle.about | {"calibration": {name: calibration}},
    )


def _strange(verb: str, flag: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        put(folder / "strange")
        run(verb, folder, {flag: str(folder / "strange")}, [])
        raise Wrong("it was used")

    return attempt


def _taken(verb: str, flag: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    """Returns what puts something in the place of an output, which has to be there afterwards."""

    def attempt(folder: Path) -> None:
        place = Path(_given(_LINES[verb][flag], folder))
        put(place)
        before = _contents(place)
        try:
            run(verb, folder, {}, [])
        finally:
            if _contents(place) != before:
                raise Wrong("what was there is changed")
        raise Wrong("it was taken for a place to write to")

    return attempt


def _contents(place: Path) -> dict[str, bytes]:
    paths = [place, *place.rglob("*")] if place.is_dir() else [place]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def _valued(verb: str, values: list[str]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        flags = {value.partition("=")[0].lstrip("-") for value in values if value[0] == "-"}
        line = _LINES[verb].keys() - flags
        given = {f: _given(_LINES[verb][f], folder) for f in _LINES[verb] if f in line}
        arguments = [f"--{flag}={value}" if flag else value for flag, value in given.items()]
        command = import_module(f"jaxmat.commands.{verb}").COMMAND
        execute(command, [f"jaxmat {verb}", *arguments, *values])
        raise Wrong("it was run")

    return attempt


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda place: place.write_bytes(content)


def _folder_with(name: str, content: bytes) -> Callable[[Path], object]:
    def put(place: Path) -> None:
        (place / name).parent.mkdir(parents=True)
        (place / name).write_bytes(content)

    return put


def _truncated_model(place: Path) -> None:
    shutil.copytree(EXAMPLE, place)
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


# In place of what is read.
_STRANGE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda place: None,
    "an empty file": _bytes(b""),
    "not UTF-8": _bytes(b"\xff\xfe\xfa{"),
    "half a JSON": _bytes(b'{"columns": ["structure", "ga'),
    "JSON of a number": _bytes(b"3"),
    "half a gzip": _bytes(gzip.compress(json.dumps([{}] * 99).encode())[:20]),
    "a picture": _bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000)),
    "an empty folder": Path.mkdir,
    "a folder of text": _folder_with("thesis.tex", b"mine"),
    "a folder with a config": _folder_with("config.json", b"{}"),
    "a folder with half a config": _folder_with("config.json", b'{"format"'),
    "a folder with half a splits file": _folder_with("splits/gap.json", b"{"),
    "a folder with a checkpoint of nothing": _folder_with("checkpoints", b""),
    "a truncated model": _truncated_model,
    "a pipe": os.mkfifo,
    "a device": lambda place: place.symlink_to("/dev/zero"),
    "a loop": lambda place: place.symlink_to(place),
}
# In place of what is written.
_TAKEN: dict[str, Callable[[Path], object]] = {
    "a thesis": _bytes(b"mine"),
    "a folder of text": _folder_with("thesis.tex", b"mine"),
    "a model of another program": _folder_with("config.json", b'{"model_type": "bert"}'),
    "a model": lambda place: shutil.copytree(EXAMPLE, place),
}
