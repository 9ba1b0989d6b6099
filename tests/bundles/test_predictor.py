"""Predicting data sets one after another."""

from __future__ import annotations

import numpy as np

from jaxmat.bundles.bundle import load
from jaxmat.bundles.model import Predictor
from jaxmat.bundles.shipped import DEFAULT
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.tables import read_table


def test_predictions_do_not_depend_on_what_was_predicted_before() -> None:
    """A run that is stopped after training, before its test, has not predicted all of it."""
    bundle = load(DEFAULT)
    network = bundle.model.network()
    variables = {kind: bundle.variables[kind] for kind in ("params", "batch_stats")}
    structures = read_table("bundled:dielectric").take(range(24)).structures
    graphs = list(build_graphs(structures, bundle.model.graph))
    blank = np.full((24, len(bundle.model.heads)), np.nan)
    some, all_of_them = Dataset(graphs[:3], blank[:3]), Dataset(graphs, blank)

    def predictions(before: bool) -> np.ndarray:
        predictor = Predictor(network)
        predictor.foresee([all_of_them, some])
        if before:
            predictor(variables, all_of_them)
        return predictor(variables, some)

    np.testing.assert_array_equal(predictions(before=True), predictions(before=False))
