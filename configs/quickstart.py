"""A model of 450 dielectric constants from one that has seen none, beside what is simpler.

python run_experiment.py --config=configs/quickstart.py --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    # Labels, logarithm and loss were chosen on the validation part, epochs so that there are about
    # as many steps as the protocol "sound" has.
    finetune = defaults.finetune(path="bundled:dielectric", target="poly_total", unit="1")
    finetune.data.log = True
    finetune.data.n_train = 300
    finetune.data.n_validation = 150
    finetune.data.n_test = 500
    finetune.start_from = "no_dielectric"  # of their table it has seen no crystal
    # Ahead of fine-tuning on development data (docs/networks.md), and done in seconds.
    finetune.strategy = "gaussian_process"
    finetune.training.epochs = 50
    finetune.training.evaluate_every = 5
    finetune.training.learning_rate = 1e-3  # random weights are trained with it, too
    config = ConfigDict(
        {
            "experiment": "quickstart",
            "seed": 0,
            "seeds": 1,
            "finetune": finetune,
            "network": defaults.network(),
        }
    )
    return defaults.variant(config, variant)
