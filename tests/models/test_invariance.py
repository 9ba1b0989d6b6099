"""The same crystal, written in another way, has the same prediction."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks import golden
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import GraphSettings, build_graphs

RNG_SEED = 3


def rotated(structure: Structure, rng: np.random.Generator) -> Structure:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # some with a reflection
    lattice = Lattice(structure.lattice.matrix @ rotation)
    return Structure(lattice, structure.species, structure.frac_coords)


def shifted(structure: Structure, rng: np.random.Generator) -> Structure:
    shift = rng.uniform(-2, 2, size=3)
    return Structure(structure.lattice, structure.species, structure.frac_coords + shift)


def other_cells_of_sites(structure: Structure, rng: np.random.Generator) -> Structure:
    cells = rng.integers(-3, 4, size=(len(structure), 3))
    return Structure(structure.lattice, structure.species, structure.frac_coords + cells)


def reordered(structure: Structure, rng: np.random.Generator) -> Structure:
    return Structure.from_sites([structure[i] for i in rng.permutation(len(structure))])


def doubled(structure: Structure, _: np.random.Generator) -> Structure:
    return structure.make_supercell([2, 1, 1], in_place=False)


def skewed(structure: Structure, _: np.random.Generator) -> Structure:
    """Other vectors of the same lattice."""
    return structure.make_supercell([[1, 1, 0], [0, 1, 0], [2, -1, 1]], in_place=False)


def skewed_and_doubled(structure: Structure, _: np.random.Generator) -> Structure:
    return structure.make_supercell([[1, 1, 0], [-1, 1, 0], [1, 0, 1]], in_place=False)


@pytest.fixture(scope="module")
def predict(golden_folder) -> Callable[[list[Structure]], np.ndarray]:
    """Predictions of the small golden model in float64; compiled once."""
    model = golden.read_model(golden_folder / "single_weights.npz")
    apply = jax.jit(model.network.apply)

    def predict(crystals: list[Structure]) -> np.ndarray:
        graphs = list(build_graphs(crystals, GraphSettings()))
        shape = Shape(len(crystals) + 1, 512, 4096, 32768)
        batch = batch_crystals(graphs, np.zeros((len(crystals), 1)), shape, np.float64)
        with jax.enable_x64(True):
            return np.array(apply(model.cast(np.float64), batch)[:-1, 0])

    return predict


@pytest.fixture(scope="module")
def expected(predict, structures) -> np.ndarray:
    return predict(structures)


@pytest.mark.parametrize(
    "rewrite",
    [rotated, shifted, other_cells_of_sites, reordered, doubled, skewed, skewed_and_doubled],
)
def test_prediction_does_not_depend_on_how_a_crystal_is_written(
    rewrite, predict, expected, structures
):
    rng = np.random.default_rng(RNG_SEED)
    found = predict([rewrite(structure, rng) for structure in structures])
    spread = np.std(expected)
    assert spread > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * spread)


def test_another_crystal_has_another_prediction(predict, expected, structures):
    """Far beyond the tolerance above, although random weights care little for lengths."""
    found = predict([structure.apply_strain(0.01, inplace=False) for structure in structures])
    assert (np.abs(found - expected) > 1e-8).all()
