"""Pre-train on formation energies, fine-tune on dielectric constants, compare with scratch.

python run_experiment.py --config=configs/quickstart.py --workdir=DIR
"""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    pretrain = defaults.scratch(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    pretrain.experiment = "pretrain"
    pretrain.data.max_sites = 8
    pretrain.data.n_train = 1500
    pretrain.data.n_validation = 100
    pretrain.data.n_test = 100
    pretrain.training.epochs = 12
    finetune = defaults.finetune(path="bundled:dielectric", target="poly_total", unit="1")
    finetune.data.log = True
    finetune.data.n_train = 300
    finetune.data.n_validation = 50
    finetune.data.n_test = 200
    finetune.training.epochs = 30
    config = ConfigDict(
        {
            "experiment": "quickstart",
            "seed": 0,
            "seeds": 1,
            "pretrain": pretrain,
            "finetune": finetune,
        }
    )
    return defaults.variant(config, variant)
