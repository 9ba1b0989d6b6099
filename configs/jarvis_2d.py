"""Band gaps of 2D crystals from networks that have seen none: all properties at once, and each.

python run_experiment.py --config=configs/jarvis_2d.py --workdir=DIR --config.data.tables=TABLES

The folder TABLES has a table jarvis2d.json.gz of 1,103 crystals; 110 are tested on. Its file
union.json.gz is the table of all properties; where there is none, it is made (this takes minutes).
As the authors did it: --config.protocol=published_multi_property. What it would do:
--config.job.action=dry_run. The variant "smoke" runs on bundled tables.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study(
        "Band gaps of 2D crystals",
        sources=("all", "each"),
        source_sizes=(0,),
        targets=("jarvis2d",),
        target_sizes=(993,),
    )
    return defaults.variant(config, variant)
