"""What the other tests here say of the default trunk holds for the others, too."""

from __future__ import annotations

from functools import partial
from itertools import islice
from operator import eq
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import load, read_bundle, save_bundle
from jaxmat.bundles.predict import predict
from jaxmat.data.tables import read_table
from jaxmat.experiments import defaults, run
from jaxmat.models.network import TRUNKS

# Descriptors are no network to train: tests/experiments/test_closed_form.py is about them.
OTHERS = sorted(TRUNKS.keys() - {defaults.network().trunk.kind, "descriptors"})

pytestmark = pytest.mark.slow


def small(kind: str, start_from: Path | None = None) -> ConfigDict:
    fields = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
    if start_from:
        config = defaults.finetune(**fields)
        config.start_from = str(start_from)
    else:
        config = defaults.scratch(**fields)
        config.network.trunk.kind = kind
    return defaults.variant(config, "smoke")


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = (load(place).variables for place in (one, other))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


@pytest.mark.parametrize("kind", OTHERS)
def test_a_stopped_run_goes_on_and_its_bundle_predicts(kind: str, tmp_path: Path) -> None:
    assert run(small(kind), tmp_path / "whole")
    for step in (1, 3):
        assert run(small(kind), tmp_path / "broken", stop=partial(eq, step)) is None
    assert run(small(kind), tmp_path / "broken")
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")

    bundle = read_bundle(tmp_path / "whole" / "model")
    assert bundle.model.trunk["kind"] == kind
    save_bundle(tmp_path / "copy", bundle)
    crystals = read_table("bundled:dielectric").structures
    known = set(bundle.about["elements"])
    structures = [c for c in islice(crystals, 200) if {e.symbol for e in c.elements} <= known][:3]
    rows = [predict(tmp_path / name, structures) for name in ("whole", "copy")]
    assert [row.prediction for row in rows[0]] == [row.prediction for row in rows[1]]
    assert np.ptp([row.prediction for row in rows[0]]) > 0

    assert run(small(kind, start_from=tmp_path / "copy"), tmp_path / "tuned")
    assert load(tmp_path / "tuned").model.trunk == bundle.model.trunk


@pytest.mark.parametrize("kind", OTHERS)
def test_seeds_trained_together_are_seeds_trained_alone(kind: str, tmp_path: Path) -> None:
    together = small(kind)
    together.population = 2
    result = run(together, tmp_path / "together")
    assert result is not None
    for seed in result["seeds"]:
        config = small(kind)
        config.seed = seed
        alone = run(config, tmp_path / f"alone_{seed}")
        assert alone is not None
        assert result["test_mae_by_seed"][seed] == pytest.approx(alone["test_mae"], rel=1e-3)
