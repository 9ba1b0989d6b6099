"""Which parameters to fine-tune, and how.

python run_experiment.py --config=configs/strategies.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR. As the authors did:
--config.protocol=published. What it would do: --config.job.action=dry_run. Of the network of the
paper, whose angles one strategy is about; the others are for every trunk.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study(
        "Fine-tuning strategies",
        sources=("formation_energy",),
        strategies=(
            "all_layers",
            "last_layer",
            "new_head",
            "two_body",
            "three_body",
            "head_first",
            "layer_wise",
            "source_penalty",
            "interpolation",
            "soup",
        ),
    )
    config.network.trunk.kind = "alignn"
    return defaults.variant(config, variant)
