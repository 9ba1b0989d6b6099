r"""Fine-tunes a pre-trained model on your table.

    jaxmat finetune --data=my_table.csv --target=hardness --unit=GPa --workdir=runs/mine

It starts from a model that comes with the package; --start_from=DIR names another. Any field of the
config can be set (--config.training.epochs=30); --print_config lists them. If it is stopped by a
signal, the same command resumes. Exit codes: 0 done; 2 a mistake that you can fix, or a full disk;
4 stopped by a signal, with everything saved.
"""

from __future__ import annotations

from jaxmat.commands.experiment import TABLE, experiment

COMMAND = experiment(
    __doc__,
    default="finetune",
    kinds=("finetune",),
    short={"start_from": "start_from", **TABLE},
    distributed=True,
)
