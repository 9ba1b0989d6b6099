"""The command: jaxmat VERB --FLAG=VALUE ...

Nothing here imports JAX, so that help comes at once, and so that the program starts anew with its
allocator before the long imports and not after them.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

from jaxmat import __version__
from jaxmat.runtime.allocator import restart_with_allocator
from jaxmat.runtime.stopping import STOPPED

# Each is a module of this folder with a `COMMAND`; the first line of the module says what it does.
VERBS = (
    "train",
    "finetune",
    "choose",
    "evaluate",
    "predict",
    "embed",
    "suggest",
    "inspect",
    "convert",
    "unite",
    "study",
)


def main() -> None:
    """Runs the command line of the process."""
    if len(sys.argv) < 2 or sys.argv[1] in ("help", "--help", "-help", "-h"):
        print(_overview())
        return
    verb = sys.argv[1]
    if verb == "--version":
        print(__version__)
        return
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(VERBS)}."
        print(f"error: jaxmat has no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    start(verb, [f"jaxmat {verb}", *sys.argv[2:]])


def start(module: str, argv: list[str]) -> None:
    """Runs the command of a module of this folder.

    Args:
        module: its name.
        argv: the command line, the name of the program first.
    """
    restart_with_allocator()
    try:  # imports take seconds, and whoever sees a mistake in the line interrupts them
        from jaxmat.commands import command

        chosen = importlib.import_module(f"jaxmat.commands.{module}").COMMAND
    except KeyboardInterrupt:
        print("Stopped by SIGINT before anything was begun.", file=sys.stderr)
        sys.exit(STOPPED)
    command.start(chosen, argv)


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {_first_line(verb)}" for verb in VERBS]
    return "\n".join(
        [
            "Transfer learning of material properties: jaxmat VERB --FLAG=VALUE ...",
            "",
            *lines,
            "",
            "jaxmat VERB --help lists the flags of a verb.",
        ]
    )


def _first_line(verb: str) -> str:
    """Returns the first line of a module without importing it."""
    source = Path(__file__).with_name(f"{verb}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    main()
