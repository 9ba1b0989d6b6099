"""What all programs share: how they start, what they log, how they end on a mistake."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import jax
from absl import app, flags
from absl import logging as absl_logging

from jaxmat.errors import UserError
from jaxmat.runtime import hosts
from jaxmat.runtime.allocator import restart_with_allocator
from jaxmat.runtime.caches import cache_folder
from jaxmat.runtime.files import reason, refuse_addresses, shown_lines
from jaxmat.runtime.logs import Harmless, SaidOnce
from jaxmat.runtime.stopping import STOPPED, Stopped

_COMPILED = "/jax/core/compile/backend_compile_duration"
_KEPT_FROM = 0.1  # seconds of compiling


def return_freed_memory() -> None:
    """Gives back to the system, from now on, what JAX has freed after it compiled something.

    That is up to a hundred megabytes for each program, which glibc would keep; other C libraries
    are left alone.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if trim is not None and event == _COMPILED:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(listen)


def _keep_programs(folder: Path) -> None:
    """Lets JAX keep compiled programs in a folder, or warns that it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # By default JAX keeps what took a second: of a small network next to nothing.
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _KEPT_FROM)
    else:
        logging.getLogger("jaxmat").warning(
            "%s cannot be written: programs are compiled anew at each start. Set the environment "
            "variable XDG_CACHE_HOME, for all caches, or JAX_COMPILATION_CACHE_DIR to a folder "
            "that can.",
            folder,
        )


def parse_flags(
    argv: list[str], values: flags.FlagValues = flags.FLAGS, known_only: bool = False
) -> list[str]:
    """Parses the flags of a program.

    Args:
        argv: the command line, the name of the program first.
        values: the flags.
        known_only: whether unknown flags are left among the other arguments.

    Returns:
        The other arguments, the name of the program first.

    Raises:
        UserError: an unknown flag, a value of the wrong type, a required flag left out, or an
            address in place of a path.
    """
    try:
        rest: list[str] = values(argv, known_only)
    except (flags.Error, ValueError) as error:
        raise UserError(_illegal_value(str(error), values)) from error
    refuse_addresses({f"--{name}": value for name, value in values.flag_values_dict().items()})
    return rest


def _illegal_value(error: str, values: flags.FlagValues) -> str:
    """Returns in our words what absl says of a value: flag --NAME=VALUE: what it has tried."""
    # Imported here, because most programs have no config.
    from jaxmat.experiments.ranges import allowed

    if "flagfile" in error:
        return "--flagfile cannot be read"
    if error.startswith("Missing value for flag "):
        return f"{error.split()[-1]} needs a value (--help lists the flags)"
    match = re.match(r"flag --([\w.]+)=(.*?): ", error, re.DOTALL)
    if not match:
        return f"{error} (--help lists the flags)"
    name, value = match.groups()
    flag = values[name] if name in values else None
    if value == "None" and flag is not None and flag.default is None:
        return f"--{name} is missing. {flag.help}"
    may_be = allowed(name.removeprefix("config."))
    text = may_be.text if may_be else "true or false"
    if not may_be and flag is not None and not flag.boolean:
        text = flag.parser.syntactic_help  # such as "a positive integer", or "number >= 0.1"
        text = re.sub("^(?=number)", "a ", re.sub("^(?=integer)", "an ", text))
    return f"--{name} is {value!r:.80}; it has to be {text} (--help lists the flags)"


def refuse_arguments(argv: list[str], hint: str) -> None:
    """Refuses what is left of the command line once the flags are parsed.

    Raises:
        UserError: something is left; the message ends with the hint.
    """
    if len(argv) > 1:
        raise UserError(f"Unexpected arguments: {' '.join(argv[1:])}. {hint}")


def run_program(
    main: Callable[[list[str]], int | None],
    parse: Callable[[list[str]], list[str]] = parse_flags,
    argv: list[str] | None = None,
) -> None:
    """Runs a program to its end; a UserError ends it with its message alone and exit code 2.

    So does what the system refuses, as on a disk that is full or read-only.

    Args:
        main: what it does, given what `parse` returns; it may return the exit code.
        parse: parses the flags.
        argv: the command line, that of the process where it is None.
    """
    restart_with_allocator()

    def prepared(argv: list[str]) -> int | None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax talks much through it
        logging.basicConfig(
            level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
        )
        logging.getLogger("jaxmat").setLevel(logging.INFO)
        # It says at length that a cache of its own cannot be written, and of what setting.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        for handler in logging.getLogger().handlers:
            handler.addFilter(SaidOnce())
            handler.setFormatter(Harmless("%(asctime)s %(message)s", "%H:%M:%S"))
        # Names of files may hold bytes that are no UTF-8.
        cast(TextIOWrapper, sys.stdout).reconfigure(errors="surrogateescape")
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            _keep_programs(cache_folder("xla"))
        return_freed_memory()
        gc.freeze()  # modules stay: going through them again and again takes a tenth of a second
        return main(argv)

    try:
        app.run(prepared, argv, flags_parser=parse)
    except UserError as error:
        print(f"error: {shown_lines(with_notes(str(error), error))}", file=sys.stderr)
        hosts.end(2)
    except (Stopped, KeyboardInterrupt) as stopped:
        name = stopped.signal.name if isinstance(stopped, Stopped) else "SIGINT"
        advice = with_notes("", stopped) or "Nothing is kept: start the same command again."
        print(f"Stopped by {name}. {advice}", file=sys.stderr)
        hosts.end(STOPPED)
    except BrokenPipeError:  # whoever read what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        hosts.end(1)
    except OSError as error:
        if error.errno is None:
            raise
        text = (
            f"{error.filename or 'a file'}: {reason(error)}. What was written before is safe: mend "
            "it and start the same command again"
        )
        print(f"error: {shown_lines(with_notes(text, error))}", file=sys.stderr)
        hosts.end(2)


def with_notes(text: str, error: BaseException) -> str:
    """Returns a text and, each on a line, what was added to an error and to its cause."""
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    notes = [note for one in causes for note in getattr(one, "__notes__", [])]
    return "\n".join(filter(None, [text, *notes]))
