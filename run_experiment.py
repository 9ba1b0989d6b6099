"""Runs an experiment: python run_experiment.py --config=configs/NAME.py --workdir=DIR.

Any field of the config can be overridden: --config.training.epochs=3.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import config_flags

from jaxmat import experiments
from jaxmat.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results and checkpoints go.")

# Without it the C library returns XLA's buffers to the system after every step, and each step
# faults them in again. It is read when the process starts, hence the new start.
_ALLOCATOR = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    if len(argv) > 1:
        extra = " ".join(argv[1:])
        raise UserError(f"Unexpected arguments: {extra}. Fields are set with --config.NAME=VALUE.")
    # absl has put its own handler on the root logger; orbax talks much through it.
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger("jaxmat").setLevel(logging.INFO)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/jaxmat/xla"))
    experiments.run(_CONFIG.value, _WORKDIR.value)


def parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with a config or its overrides becomes a UserError."""
    try:
        rest: list[str] = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{error} (in --config or one of its overrides)") from error
    if _CONFIG.value is None or not _WORKDIR.value:
        raise UserError("Give --config=configs/NAME.py and --workdir=DIR.")
    return rest


def run_without_traceback() -> None:
    """Runs main; a UserError ends it with its message alone."""
    try:
        app.run(main, flags_parser=parse)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    name, value = _ALLOCATOR
    if sys.platform == "linux" and name not in os.environ:
        os.environ[name] = value
        os.execv(sys.executable, [sys.executable, *sys.argv])
    run_without_traceback()
