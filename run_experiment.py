"""Runs an experiment: python run_experiment.py --config=configs/NAME.py --workdir=DIR.

Any field of the config can be overridden: --config.training.epochs=3.

Exit codes: 0 the run is done; 2 there is a mistake that you can mend, or the disk is full; 4 a
signal (SIGTERM, SIGINT, SIGUSR1) has stopped it, what was done is saved, and the same command goes
on. A second signal ends it at once.

On several hosts, or once for each GPU, start it with --distributed: see docs/clusters.md.
"""

from __future__ import annotations

import sys

from absl import flags
from ml_collections import config_flags

from jaxmat import experiments
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.runtime import hosts
from jaxmat.runtime.stopping import STOPPED, stop_on_signals

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results and checkpoints go.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Be one of several processes.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many, where JAX cannot find out.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them, from 0 on; likewise.")


def main(argv: list[str]) -> int | None:
    """Runs the experiment that the flags describe; returns the exit code."""
    refuse_arguments(argv, "Fields are set with --config.NAME=VALUE.")
    if _DISTRIBUTED.value:
        hosts.join(_PROCESSES.value, _PROCESS.value)
    with stop_on_signals(hosts.agreement()) as stop:
        result = experiments.run(_CONFIG.value, _WORKDIR.value, stop)
    if result is not None or stop.step is None:
        return None
    if hosts.is_first():
        by = stop.signal.name if stop.signal else "a signal to another process"
        print(
            f"Stopped by {by} at step {stop.step} of the training under way. All that was done is "
            f"saved in {_WORKDIR.value}; the same command goes on from there.",
            file=sys.stderr,
        )
    return STOPPED


def parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with a config or its overrides becomes a UserError."""
    try:
        rest: list[str] = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{error} (in --config or one of its overrides)") from error
    if _CONFIG.value is None or not _WORKDIR.value:
        raise UserError("Give --config=configs/NAME.py and --workdir=DIR.")
    return rest


if __name__ == "__main__":
    run_program(main, parse)
