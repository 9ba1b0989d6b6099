r"""Finds out which model is best for your table, by cross-validation, and trains it.

    jaxmat choose --data=my_table.csv --target=hardness --unit=GPa --workdir=runs/choice

It takes at most ten minutes, or --minutes=N; Gaussian processes are fitted however short that is.
Candidates are models without pre-training and those that start from a model of the package;
--start_from=RUN_A,RUN_B names others, --start_from=none leaves them out. Any field of the config
can be set (--config.folds=10); --print_config lists them. If it is stopped by a signal, the same
command resumes.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="choose",
    kinds=("choose",),
    short={"start_from": "candidates", **TABLE, "minutes": "minutes"},
)
