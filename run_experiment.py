"""Runs an experiment: python run_experiment.py --config=configs/NAME.py --workdir=DIR.

Any field of the config can be overridden: --config.training.epochs=3.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from jaxmat import experiments
from jaxmat.commands import refuse_arguments, run_program
from jaxmat.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results and checkpoints go.")


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    refuse_arguments(argv, "Fields are set with --config.NAME=VALUE.")
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


if __name__ == "__main__":
    run_program(main, parse)
