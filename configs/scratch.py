"""Training from random weights: a bundled set, or a table of your own.

python run_experiment.py --config=configs/scratch.py --workdir=DIR \
    --config.data.path=FILE --config.data.target=COLUMN --config.data.unit=UNIT
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.scratch(), variant)
