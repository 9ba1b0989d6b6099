"""Fine-tuning of a checkpoint on a table of your own.

python run_experiment.py --config=configs/finetune.py --workdir=DIR --config.start_from=CHECKPOINT \
    --config.data.path=FILE --config.data.target=COLUMN --config.data.unit=UNIT
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.finetune(), variant)
