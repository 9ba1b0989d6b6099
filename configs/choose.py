"""Which checkpoint to fine-tune on a table of your own, and how; then the fine-tuned model.

python run_experiment.py --config=configs/choose.py --workdir=DIR \
    --config.candidates=CHECKPOINT,CHECKPOINT \
    --config.data.path=FILE --config.data.target=COLUMN --config.data.unit=UNIT
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke", which pre-trains a candidate of its own."""
    if variant != "smoke":
        return defaults.variant(defaults.choose(), variant)
    config = defaults.choose(path="bundled:dielectric", target="poly_total", unit="1")
    config.pretrain, config.candidates = defaults.pretrain(), ()
    config.strategies, config.folds = ("gaussian_process", "all_layers", "last_layer"), 2
    config.minutes, config.element_features = 0.0, ()
    return defaults.variant(config, variant)
