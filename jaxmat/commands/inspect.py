"""Tells what a model is, and how it differs from another.

jaxmat inspect DIR [OTHER]
"""

from __future__ import annotations

from jaxmat.bundles.bundle import load
from jaxmat.bundles.describe import compare, describe
from jaxmat.commands.command import Command, Flags
from jaxmat.errors import UserError


def _define(values: Flags) -> None:
    """Defines no flags."""


def _run(values: Flags, arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise UserError("Give a bundle, work directory or checkpoint, and perhaps another one.")
    bundles = [load(path) for path in arguments]
    print(f"# {arguments[0]}\n\n{describe(bundles[0])}")
    if len(bundles) == 2:
        print(f"\n# {arguments[1]}, compared with it\n\n{compare(*bundles)}")


COMMAND = Command(__doc__, _define, _run, arguments=True)
