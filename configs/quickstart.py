"""Pre-train on formation energies, fine-tune on dielectric constants, compare with scratch.

python run_experiment.py --config=configs/quickstart.py --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    # Labels, epochs, logarithm and loss were chosen on the validation part (README, "Try it").
    finetune = defaults.finetune(path="bundled:dielectric", target="poly_total", unit="1")
    finetune.data.log = True
    finetune.data.n_train = 300
    finetune.data.n_validation = 150
    finetune.data.n_test = 500
    finetune.training.epochs = 6
    finetune.training.max_shapes = 2
    config = ConfigDict(
        {
            "experiment": "quickstart",
            "seed": 0,
            "seeds": 1,
            "pretrain": defaults.pretrain(),
            "finetune": finetune,
        }
    )
    return defaults.variant(config, variant)
