"""Configs, and work directories that hold something else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from benchmarks.hostile.trial import Trial, Wrong, strange_places
from jaxmat.commands.configs import load_config
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.ranges import check_config

# Of which none makes sense in any field that has not text.
_SENSELESS = [math.nan, -1, -1.5, math.inf, "x", None, [], {}, 10**30]
# Files that are no config.
_FILES: dict[str, str | bytes] = {
    "empty": "",
    "no function": "x = 1\n",
    "no config": "def get_config():\n    return 3\n",
    "no syntax": "def get_config(:\n",
    "NUL": b"\0\0",
    "not UTF-8": b"x = '\xff'\n",
    "an error": "1 / 0\n",
    "an error later": "def get_config(): return undefined\n",
    "an exit": "import sys\nsys.exit(0)\n",
    "a missing library": "import no_such_library\n",
    "control characters": "raise ValueError('\\x1b[2J')\n",
    "an argument more": "def get_config(a, b): return 3\n",
    "a config of nothing": "from ml_collections import ConfigDict\n"
    "def get_config(): return ConfigDict()\n",
    "another experiment": "from ml_collections import ConfigDict\n"
    "def get_config(): return ConfigDict({'experiment': 'dance'})\n",
    "parts that are numbers": "from ml_collections import ConfigDict\n"
    "def get_config(): return ConfigDict({'experiment': 'scratch', 'data': 3, 'training': 'x'})\n",
}


Fields = dict[str, Any]


def _fields(config: ConfigDict) -> Fields:
    fields: Fields = flatten_dict(config.to_dict(), sep=".")
    return fields


def configs() -> Iterator[Trial]:
    """Yields trials of configs."""
    table = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
    tried: set[str] = set()
    for config in (
        defaults.scratch(**table),
        defaults.finetune(**table),
        defaults.evaluate(**table),
        defaults.choose(**table),
        defaults.study("title"),
        defaults.matbench(),
    ):
        fields = _fields(config)
        for field in fields.keys() - tried - {"experiment"} if tried else fields:
            yield from _of_field(fields, field, "" if not tried else f"{config.experiment}: ")
        tried |= fields.keys()
    for name, content in _FILES.items():

        def attempt(folder: Path, content: str | bytes = content) -> None:
            data = content.encode() if isinstance(content, str) else content
            (folder / "mine.py").write_bytes(data)
            _use(folder / "mine.py")

        yield Trial(f"file: {name}", attempt)
    yield from strange_places("mine.py", _use)
    for name in ("", ":", "x:y:z", "scratch:big", "../../etc/passwd", "\0", "a" * 5000):
        yield Trial(f"name {name!r:.30}", _named(name))


def _of_field(fields: Fields, field: str, place: str) -> Iterator[Trial]:
    default = fields[field]
    text = isinstance(default, str)
    for value in _SENSELESS[:: 3 if text else 1]:
        # A trunk's option that is None is its default.
        is_default = value is None and (default is None or field.startswith("network.trunk."))
        is_empty = isinstance(default, tuple) and value == []
        if not (is_default or is_empty or (text and isinstance(value, str))):
            yield Trial(f"{place}{field} = {str(value):.20}", _valued(fields, field, value))
    yield Trial(f"{place}{field} is missing", _without(fields, field))


def _named(name: str) -> Callable[[Path], None]:
    return lambda folder: _use(name)


def _use(path: str | Path) -> None:
    check_config(load_config(str(path)))
    raise Wrong("it is taken for a config")


def _valued(fields: Fields, field: str, value: Any) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        check_config(_nested(fields | {field: value}))
        raise Wrong(f"{value} is allowed")

    return attempt


def _without(fields: Fields, field: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        check_config(_nested({name: value for name, value in fields.items() if name != field}))
        if not field.startswith("network.trunk."):  # which has defaults of its own
            raise Wrong("nobody misses it")

    return attempt


def _nested(fields: dict[str, Any]) -> ConfigDict:
    config: dict[str, Any] = {}
    for name, value in fields.items():
        *parts, last = name.split(".")
        place = config
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return ConfigDict(config)


def work_directories() -> Iterator[Trial]:
    """Yields trials of work directories; none of them comes to train."""
    config = defaults.variant(
        defaults.scratch(path="bundled:dielectric", target="poly_total", unit="1"), "smoke"
    )

    def start(workdir: Path) -> None:
        run(config, workdir, lambda step: True)

    def holding(**files: str | bytes) -> Callable[[Path], None]:
        def attempt(folder: Path) -> None:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                (folder / name.replace("_", ".")).write_bytes(data)
            before = {path: path.read_bytes() for path in folder.iterdir()}
            try:
                start(folder)
            finally:
                for path, content in before.items():
                    if path.suffix in (".tex", ".jsonl") and path.read_bytes() != content:
                        raise Wrong(f"{path.name} was changed")

        return attempt

    own = json.dumps(config.to_dict())
    found: dict[str, dict[str, str | bytes]] = {
        "a thesis": {"thesis_tex": "mine"},
        "a broken config": {"config_json": "{", "metrics_jsonl": '{"step": 1}\n'},
        "a config of a list": {"config_json": "[]", "metrics_jsonl": '{"step": 1}\n'},
        "a config of NaN": {"config_json": '{"seed": NaN}', "result_json": "{}"},
        "another config": {"config_json": '{"seed": 3}', "metrics_jsonl": '{"step": 1}\n'},
        "a result cut short": {"config_json": own, "result_json": '{"test_mae": 0.'},
        "a result of a list": {"config_json": own, "result_json": "[]"},
        "a result of another kind": {"config_json": own, "result_json": '{"a": 1}'},
        "a result that is binary": {"config_json": own, "result_json": b"\xff\0"},
        "metrics of nonsense": {"config_json": own, "metrics_jsonl": b"\xff\n[]\n{}\n"},
        "a lock of nonsense": {"lock": b"\xff\xff"},
    }
    for name, files in found.items():
        yield Trial(name, holding(**files))
    yield from strange_places("run", _refused_or_made(start))
    for name in ("config.json", "result.json", "lock", "log.txt"):

        def beside(path: Path, name: str = name) -> None:
            (path.parent / "run").mkdir()
            (path.parent / "run" / "config.json").write_text(own)
            if path.is_symlink() or path.exists():
                (path.parent / "run" / name).unlink(missing_ok=True)
                path.rename(path.parent / "run" / name)
            start(path.parent / "run")

        yield from strange_places(name, beside)


def _refused_or_made(start: Callable[[Path], None]) -> Callable[[Path], None]:
    def attempt(path: Path) -> None:
        try:
            start(path)
        except UserError:
            raise
        if path.exists() and not path.is_dir():
            raise Wrong("a run in something that is not a folder")

    return attempt
