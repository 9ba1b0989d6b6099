"""The models that ship: networks pre-trained on six properties at once.

python run_experiment.py --config=configs/pretrain_shipped.py --workdir=DIR --config.data.tables=DIR

Labels are those of fe, bg, gv, ph, dc and pz, whose licence allows to ship what learned from them.
No test crystal of any table is trained on. Without dielectric labels, and without any crystal of
their table: --config.study.sources=others --config.study.targets=dc --config.data.unseen=dc.
tools/ship_model.py makes of the model, in DIR/pretrain/ID/model, what is in jaxmat/models_shipped.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    return defaults.variant(defaults.pretrain_shipped(), variant)
