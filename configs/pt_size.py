"""How many labels to pre-train on.

python run_experiment.py --config=configs/pt_size.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR. As the authors did:
--config.protocol=published. What it would do: --config.job.action=dry_run.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study(
        "Size of the pre-training set",
        sources=("formation_energy",),
        source_sizes=(500, 1000, 2000, 0),
    )
    return defaults.variant(config, variant)
