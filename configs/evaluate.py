"""Test of a checkpoint on all labels of a table.

python run_experiment.py --config=configs/evaluate.py --workdir=DIR --config.start_from=CHECKPOINT \
    --config.data.path=FILE --config.data.target=COLUMN --config.data.unit=UNIT
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.evaluate(), variant)
