"""Pre-training on the bundled formation energies, as the quick start does it.

python run_experiment.py --config=configs/pretrain.py --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.pretrain(), variant)
