"""Pre-train on formation energies, fine-tune on dielectric constants, compare with scratch.

python run_experiment.py --config=configs/quickstart.py --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    # Labels, logarithm and loss were chosen on the validation part (README, "Try it"), epochs so
    # that there are about as many steps as the protocol "sound" has.
    finetune = defaults.finetune(path="bundled:dielectric", target="poly_total", unit="1")
    finetune.data.log = True
    finetune.data.n_train = 300
    finetune.data.n_validation = 150
    finetune.data.n_test = 500
    finetune.training.epochs = 50
    finetune.training.evaluate_every = 5
    finetune.training.learning_rate = 1e-3  # random weights are trained with it, too
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
