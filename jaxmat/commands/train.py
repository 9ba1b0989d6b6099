"""Trains a network from random weights, fits a Gaussian process, or runs the quick start.

    jaxmat train --data=my_table.csv --target=hardness --unit=GPa --workdir=runs/hardness
    jaxmat train --config=quickstart --workdir=runs/quickstart

Any field of the config can be set (--config.training.epochs=300); --print_config lists them. If it
is stopped by a signal, the same command resumes. Exit codes: 0 done; 2 a mistake that you can fix,
or a full disk; 4 stopped by a signal, with everything saved.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="scratch",
    kinds=("scratch", "pretrain", "quickstart", "gaussian_process", "matbench"),
    short=TABLE,
    distributed=True,
)
