"""Configs by name or path, and what the command line changes of them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from types import ModuleType

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.errors import UserError

_PACKAGE = "jaxmat.configs"


def config_names() -> list[str]:
    """Returns the names of the built-in configs."""
    files = resources.files(_PACKAGE).iterdir()
    names = [file.name.removesuffix(".py") for file in files if file.name.endswith(".py")]
    return sorted(name for name in names if not name.startswith("_"))


def load_config(name: str) -> ConfigDict:
    """Returns a config, locked.

    Args:
        name: of a built-in config, or the path of a Python file with a function get_config; a
            variant may follow a colon: quickstart:smoke.

    Raises:
        UserError: there is no such config, or the file has none.
    """
    where, colon, variant = name.partition(":")
    path = Path(where)
    if path.suffix == ".py" or len(path.parts) > 1:
        module = _load_file(path)
    elif where in (names := config_names()):
        module = importlib.import_module(f"{_PACKAGE}.{where}")
    else:
        raise UserError(
            f"--config={name}: there is no config {where!r}{_nearest(where, names)} (Built in are "
            f"{', '.join(names)}; else give the path of a Python file.)"
        )
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--config={name}: the file has no function get_config.")
    config = module.get_config(variant) if colon else module.get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={name}: get_config returns no ml_collections.ConfigDict.")
    return config.lock()


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = _nearest(path.stem, config_names())
        raise UserError(f"--config={path}: there is no such file{near}")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: a config is a Python file, NAME.py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise UserError(f"--config={path} cannot be loaded: {error}.") from error
    return module


def fields(config: ConfigDict) -> dict[str, object]:
    """Returns all fields of a config, as in "training.epochs"; parts without fields, too."""
    return dict(flatten_dict(config.to_dict(), keep_empty_nodes=True, sep="."))


def refuse_unknown_fields(config: ConfigDict, argv: Sequence[str]) -> None:
    """Checks the names in --config.NAME=VALUE.

    Raises:
        UserError: a config has no such fields; the message has the nearest of those it has.
    """
    known = fields(config)
    parts = {name[:i] for name in known for i, letter in enumerate(name) if letter == "."}
    wrong = [name for name in _overridden(argv) if name not in known and name not in parts]
    if wrong:
        lines = [f"--config.{name}: no such field{_nearest(name, known)}" for name in wrong]
        raise UserError("\n".join([*lines, "(--print_config lists the fields)"]))


def _overridden(argv: Sequence[str]) -> Iterator[str]:
    """Yields the names of the fields that a command line sets."""
    for argument in argv:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no")
        if argument.startswith("-") and name.startswith("config."):
            yield name.removeprefix("config.")


def _nearest(name: str, known: Sequence[str] | dict[str, object]) -> str:
    """Returns the question whether the nearest known name was meant, "" where none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    if not near:  # perhaps the name of the part was left out, or another one given
        last = {one.rpartition(".")[2]: one for one in reversed(list(known))}
        near = [last[one] for one in difflib.get_close_matches(name.rpartition(".")[2], last, 1)]
    return f"; did you mean {near[0]}?" if near else "."


def as_flags(config: ConfigDict) -> str:
    """Returns a config as it would be given on a command line, a field a line."""
    return "\n".join(
        f"# --config.{name} is not set"
        if value is None
        else shlex.quote(f"--config.{name}={value}")
        for name, value in fields(config).items()
    )
