"""The network on classes with counts is the network on all sites, bonds and angles."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.shapes import graph_sizes

SETTINGS = {
    "complete shells": GraphSettings(),
    "canonical": GraphSettings("reference", canonical=True),
    "non-canonical": GraphSettings("reference", canonical=False),
}


@pytest.fixture(scope="module")
def of_network(angles):
    """The settings for the graphs of the network at hand."""
    return {name: replace(settings, angles=angles) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def given(structures, of_network):
    """All crystals as they are, none compressed."""
    return {
        name: list(build_graphs(structures, replace(settings, compress=False)))
        for name, settings in of_network.items()
    }


def worst(found, expected) -> dict[str, float]:
    errors = jax.tree.map(golden.difference, found, expected)
    return {what: max(jax.tree.leaves(tree), default=0.0) for what, tree in errors.items()}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("mates", [1, 3])
def test_compression_changes_nothing(name, mates, structures, given, of_network, evaluate):
    compressed = list(build_graphs(structures, of_network[name]))
    plain = [golden.levelled(crystal, SETTINGS[name].tolerance) for crystal in given[name]]
    fewer, all_rows = (graph_sizes(graphs).sum(axis=0) for graphs in (compressed, plain))
    assert (fewer[all_rows > 0] < 0.9 * all_rows[all_rows > 0]).all()
    for start in range(0, len(plain) - mates + 1, mates):
        chosen = slice(start, start + mates)
        expected, found = evaluate(plain[chosen]), evaluate(compressed[chosen])
        assert np.ptp(expected["training, predictions"]) > 0
        for what, error in worst(found, expected).items():
            assert error < 1e-9, f"crystals {chosen}: {what}"


@pytest.mark.parametrize("name", SETTINGS)
def test_nearly_equal_lengths_may_share_a_class(name, structures, given, of_network, evaluate):
    """Coordinates have six decimals; a class has the mean, so the error is of second order."""
    compressed = list(build_graphs(structures, of_network[name]))
    for plain, small in zip(given[name], compressed, strict=True):
        errors = worst(evaluate([small]), evaluate([plain]))
        assert errors["evaluation, predictions"] < 1e-8
        assert errors["evaluation, gradients"] < 1e-6


def test_counts_matter(structures, of_network, evaluate):
    """A compressed crystal without its counts is another crystal."""
    (crystal,) = build_graphs(structures[4:5], of_network["complete shells"])
    ones = crystal._replace(bond_multiplicity=np.ones_like(crystal.bond_multiplicity))
    assert worst(evaluate([ones]), evaluate([crystal]))["evaluation, predictions"] > 1e-6
