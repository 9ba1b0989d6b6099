"""Configs that run in seconds on bundled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from jaxmat.experiments import defaults, run


def small(config: ConfigDict, **training: Any) -> ConfigDict:
    config = defaults.variant(config, "smoke")
    config.training.update(training)
    return config


def small_scratch(**training: Any) -> ConfigDict:
    fields = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
    return small(defaults.scratch(**fields), **training)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on formation energies."""
    workdir = tmp_path_factory.mktemp("pretrained")
    fields = {"path": "bundled:formation_energy", "target": "e_form", "unit": "eV/atom"}
    assert run(small(defaults.scratch(**fields)), workdir) is not None
    return workdir


def small_finetune(start_from: Path, strategy: str = "all_layers", **training: Any) -> ConfigDict:
    fields = {"path": "bundled:piezoelectric", "target": "eij_max", "unit": "C/m^2"}
    config = small(defaults.finetune(**fields), **training)
    config.start_from, config.strategy = str(start_from), strategy
    return config


def without_times(result: dict[str, Any] | None) -> dict[str, Any]:
    """What two runs of one config have in common."""
    assert result is not None
    return {name: value for name, value in result.items() if not name.endswith("seconds")}
