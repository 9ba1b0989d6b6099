"""Pre-training on all properties but the target's at once, and on each by itself.

python run_experiment.py --config=configs/multi_property.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR. Its file
union.json.gz is the table of all properties; where there is none, it is made (this takes minutes).
As the authors did it: --config.protocol=published_multi_property. What it would do:
--config.job.action=dry_run.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.study(
        "Multi-property pre-training",
        sources=("others", "each"),
    )
    return defaults.variant(config, variant)
