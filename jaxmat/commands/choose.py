r"""Finds out which model is best for a table of your own, and how to train it, and does so.

    jaxmat choose --start_from=RUN_A,RUN_B --data=my_table.csv --target=hardness --unit=GPa \
        --workdir=runs/choice

It takes ten minutes at most, or --minutes=N. Without --start_from it chooses among models that
start from nothing. Any field of the config can be set: --config.folds=10; --print_config lists
them. Stopped by a signal, the same command goes on.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="choose",
    kinds=("choose",),
    short={"start_from": "candidates", **TABLE, "minutes": "minutes"},
)
