"""At which learning rate to fine-tune, all layers and new heads.

python run_experiment.py --config=configs/learning_rate.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR. As the authors did:
--config.protocol=published. What it would do: --config.job.action=dry_run.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study(
        "Learning rate of fine-tuning",
        sources=("formation_energy",),
        target_sizes=(500,),
        strategies=("all_layers", "new_head_freeze_1", "new_head_freeze_6"),
        learning_rates=(1e-2, 1e-3, 1e-4, 1e-5),
    )
    return defaults.variant(config, variant)
