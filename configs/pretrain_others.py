"""For each target a network pre-trained on all other properties at once, to start from.

python run_experiment.py --config=configs/pretrain_others.py --workdir=DIR

Runs on the bundled tables, or on those of a folder: --config.data.tables=DIR, where union.json.gz
is the table of all properties (where there is none, it is made). Labels that a crystal lacks count
for nothing; no test crystal of any table is trained on, nor one that equals it. The bundles are in
DIR/pretrain/pretrain-all_but_TARGET-all-s0/model; --config.study.targets=dc,ph makes those for some
targets, --config.data.united=fe,bg,gv learns those properties alone. One takes about ten minutes on
two cores. To go on with the study: --config.job.action=run.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.pretrain_others(), variant)
