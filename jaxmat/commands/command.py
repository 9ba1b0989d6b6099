"""What a verb of the command is: its help, its flags and what it does."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import flags

from jaxmat.commands.program import parse_flags, refuse_arguments, run_program

Flags = flags.FlagValues
_WIDTH = 100


class Command(NamedTuple):
    """A verb, or a program of its own.

    Attributes:
        help: what it does and how it is called, most often the text on top of its module.
        define: defines its flags.
        run: does it, given the flags and the other arguments; it may return the exit code.
        parse: parses the flags; returns the other arguments, the name of the program first.
        arguments: whether there may be other arguments.
    """

    help: str
    define: Callable[[Flags], None]
    run: Callable[[Flags, list[str]], int | None]
    parse: Callable[[list[str], Flags], list[str]] = parse_flags
    arguments: bool = False


def start(command: Command, argv: list[str]) -> None:
    """Runs a command to its end; see `run_program`.

    Args:
        command: what to run.
        argv: its command line, the name of the program first.
    """

    def keep(argv: list[str]) -> list[str]:
        flags.FLAGS(argv[:1])  # the flags that libraries have defined keep their defaults
        return argv

    run_program(functools.partial(execute, command), keep, argv)


def execute(command: Command, argv: list[str]) -> int | None:
    """Does what a command line says, or prints the command's help; returns the exit code.

    Args:
        command: what to run.
        argv: its command line, the name of the program first.

    Raises:
        UserError: a mistake that the user can mend, in the flags or in what they name.
    """
    values = flags.FlagValues()
    command.define(values)
    if _asks_for_help(argv):
        print("\n".join(_help(command, values)))
        return None
    rest = command.parse(argv, values)
    if not command.arguments:
        refuse_arguments(rest, "Every value needs a flag: --NAME=VALUE (--help lists them).")
    return command.run(values, rest[1:])


def _asks_for_help(argv: list[str]) -> bool:
    return any(argument in ("--help", "-help", "-h") for argument in argv[1:])


def _help(command: Command, values: Flags) -> Iterator[str]:
    yield command.help.strip()
    if names := list(values):
        yield "\nFlags:"
    for name in names:
        flag = values[name]
        default = "" if flag.default in (None, "", [], False) else f" Default: {flag.default}."
        yield f"  --{name}"
        yield textwrap.fill(
            f"{flag.help}{default}", _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
