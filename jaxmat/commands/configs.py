"""Configs by name or path, and what the command line changes of them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments.fields import fields, nearest
from jaxmat.experiments.ranges import allowed
from jaxmat.runtime.files import shown

_PACKAGE = "jaxmat.configs"
_LONGEST_NAME = 1000


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
    if len(name) > _LONGEST_NAME:
        raise UserError(f"--config={name[:60]}...: there is no config of such a long name.")
    where, colon, variant = name.partition(":")
    path = Path(where)
    if path.suffix == ".py" or len(path.parts) > 1:
        module = _load_file(path)
    elif where in (names := config_names()):
        module = importlib.import_module(f"{_PACKAGE}.{where}")
    else:
        raise UserError(
            f"--config={name}: there is no config {where!r}{nearest(where, names)} (Built in are "
            f"{', '.join(names)}; else give the path of a Python file.)"
        )
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--config={name}: the file has no function get_config.")
    arguments = (variant,) if colon else ()
    try:
        inspect.signature(module.get_config).bind(*arguments)
    except (TypeError, ValueError) as error:
        what = f"the variant {variant!r}" if colon else "no arguments"
        raise UserError(f"--config={name}: get_config cannot be called with {what}.") from error
    try:
        config = module.get_config(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it is the user's code
        raise UserError(f"--config={name}: get_config ends with {_said(error)}.") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={name}: get_config returns no ml_collections.ConfigDict.")
    return config.lock()


def _load_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise UserError(f"--config={path} is a folder; give the path of a Python file.")
    if not path.is_file():
        near = nearest(path.stem, config_names())
        raise UserError(f"--config={path}: there is no such file{near}")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: a config is a Python file, NAME.py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is the user's code
        raise UserError(f"--config={path} cannot be loaded: {_said(error)}.") from error
    return module


def _said(error: BaseException) -> str:
    """Returns what an error of the user's code says, in one line."""
    if isinstance(error, SyntaxError) and "codec" in str(error):
        return "it is not text in UTF-8"
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return shown((said or type(error).__name__) + line)


def overridden(argv: Sequence[str]) -> list[str]:
    """Returns the names of the fields that a command line sets, as in --config.NAME=VALUE."""
    flags = [argument.partition("=")[0] for argument in argv if argument.startswith("-")]
    names = [flag.lstrip("-").removeprefix("no") for flag in flags]
    return [name.removeprefix("config.") for name in names if name.startswith("config.")]


def as_flags(config: ConfigDict) -> str:
    """Returns a config as it would be given on a command line, a field a line, with its range."""
    lines = {
        f"# --config.{name} is not set"
        if value is None
        else shlex.quote(f"--config.{name}={value}"): allowed(name)
        for name, value in fields(config).items()
    }
    width = min(50, max(map(len, lines)))
    return "\n".join(
        line if may_be is None else f"{line:{width}}  # {may_be.text}"
        for line, may_be in lines.items()
    )
