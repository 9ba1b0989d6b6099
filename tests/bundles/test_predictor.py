"""Predicting data sets one after another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmat.batch import CrystalBatch
from jaxmat.bundles.model import Predictor
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.tables import read_table
from jaxmat.models.network import build_network


def rows_of_the_batch(variables: dict[str, Any], batch: CrystalBatch) -> jax.Array:
    rows = len(batch.crystals.nodes["count"])
    return jnp.full((len(batch.crystal_mask), 1), rows, jnp.float32)


def test_the_shape_of_a_batch_does_not_depend_on_what_was_predicted_before() -> None:
    """Last digits depend on it; a run that is stopped before its test has predicted less."""
    structures = read_table("bundled:dielectric").take(range(24)).structures
    graphs = list(build_graphs(structures, GraphSettings()))
    parts = [Dataset(graphs[start:], np.full((24 - start, 1), np.nan)) for start in (0, 21, 12)]
    network = build_network({"kind": "cogn"}, {"a": {"kind": "linear"}})

    def rows(foreseen: bool) -> list[float]:
        """Of the last of the parts, after more and more of the others."""
        found = []
        for before in range(3):
            predictor = Predictor(network, rows_of_the_batch)
            if foreseen:
                predictor.foresee(parts)
            for part in parts[:before]:
                predictor({}, part)
            found.append(float(predictor({}, parts[2])[0, 0]))
        return found

    assert len(set(rows(foreseen=False))) > 1
    assert len(set(rows(foreseen=True))) == 1
