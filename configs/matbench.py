"""The official folds of a Matbench task; writes results.json.gz and info.json for its site.

jaxmat train --config=matbench --data=matbench_phonons.json.gz --config.task=matbench_phonons \
    --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.matbench(), variant)
