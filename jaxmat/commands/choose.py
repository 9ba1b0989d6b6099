r"""Finds out which model is best for a table of your own, and how to train it, and does so.

    jaxmat choose --data=my_table.csv --target=hardness --unit=GPa --workdir=runs/choice

It takes ten minutes at most, or --minutes=N. Candidates start from nothing and from a model that
comes with the package; --start_from=RUN_A,RUN_B names others, --start_from=none none. Any field of
the config can be set: --config.folds=10; --print_config lists them. Stopped by a signal, the same
command goes on.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="choose",
    kinds=("choose",),
    short={"start_from": "candidates", **TABLE, "minutes": "minutes"},
)
