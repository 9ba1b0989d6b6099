"""Every property to pre-train on against every property to fine-tune on.

python run_experiment.py --config=configs/pairwise.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR. As the authors did:
--config.protocol=published. What it would do: --config.job.action=dry_run.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study("Pair-wise transfer")
    return defaults.variant(config, variant)
