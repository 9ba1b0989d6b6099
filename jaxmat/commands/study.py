"""Runs a study: a grid of pre-trainings, fine-tunings and trainings from random weights.

    jaxmat study --config=pairwise --workdir=runs/study
    jaxmat study --config=pairwise --workdir=runs/study --data=DIR --config.job.action=dry_run

--config.job.cells=i/n runs a share of its cells. Finished cells are not repeated. Any field of the
config can be set; --print_config lists them.
"""

from __future__ import annotations

from jaxmat.commands.experiment import experiment

COMMAND = experiment(
    __doc__,
    kinds=("study",),
    short={"data": "data.tables"},
)
