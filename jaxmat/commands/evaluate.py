r"""Tests a model on all labels of a table.

    jaxmat evaluate --model=runs/mine --data=table.csv --target=hardness --unit=GPa \
        --workdir=runs/test

The unit has to be that of the model: nothing is converted. If it is stopped by a signal, the same
command resumes.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="evaluate",
    kinds=("evaluate",),
    short={"model": "start_from", **TABLE},
)
