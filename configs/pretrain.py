"""Pre-training on the bundled formation energies."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxmat.experiments import defaults


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config, or its variant "smoke"."""
    config = defaults.scratch(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    config.experiment = "pretrain"
    config.data.max_sites = 10
    config.data.n_validation = 100
    config.data.n_test = 100
    config.training.epochs = 10
    return defaults.variant(config, variant)
