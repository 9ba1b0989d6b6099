"""A Gaussian process on descriptors of the crystals, fitted in seconds: for 10 to 5,000 labels.

jaxmat train --config=gaussian_process --data=FILE --target=COLUMN --unit=UNIT --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.gaussian_process(), variant)
