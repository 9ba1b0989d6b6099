"""The same crystal, written in another way, has the same prediction: all seven crystal systems."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from benchmarks import golden
from benchmarks.invariance import REWRITES
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.tables import read_table

RNG_SEED = 3
# Of the bundled dielectric table.
SYSTEMS = {
    "cubic": ("mp-441", "mp-1500"),
    "tetragonal": ("mp-2097", "mp-22904"),
    "orthorhombic": ("mp-760", "mp-1602"),
    "hexagonal": ("mp-22894", "mp-2251"),
    "trigonal": ("mp-1186", "mp-617"),
    "monoclinic": ("mp-2659", "mp-9254"),
    "triclinic": ("mp-29443", "mp-487"),
}


@pytest.fixture(scope="module")
def crystals() -> dict[str, list[Structure]]:
    rows = read_table("bundled:dielectric")
    place = {id: row for row, id in enumerate(rows.ids)}
    return {system: [rows.structures[place[id]] for id in ids] for system, ids in SYSTEMS.items()}


@pytest.fixture(scope="module")
def written(crystals) -> list[Structure]:
    return [crystal for both in crystals.values() for crystal in both]


@pytest.fixture(scope="module")
def predict(golden_folder) -> Callable[[list[Structure]], np.ndarray]:
    """Predictions of the small golden model in float64; compiled once."""
    model = golden.read_model(golden_folder / "single_weights.npz")
    apply = jax.jit(model.network.apply)

    def predict(crystals: list[Structure]) -> np.ndarray:
        graphs = list(build_graphs(crystals, GraphSettings()))
        shape = Shape(len(crystals) + 1, 128, 2048, 32768)
        batch = batch_crystals(graphs, np.zeros((len(crystals), 1)), shape, np.float64)
        with jax.enable_x64(True):
            return np.array(apply(model.cast(np.float64), batch)[:-1, 0])

    return predict


@pytest.fixture(scope="module")
def expected(predict, written) -> np.ndarray:
    return predict(written)


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib's own
def test_the_crystals_are_of_all_crystal_systems(crystals):
    found = {
        system: {SpacegroupAnalyzer(crystal, symprec=1e-3).get_crystal_system() for crystal in both}
        for system, both in crystals.items()
    }
    assert found == {system: {system} for system in SYSTEMS}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_prediction_does_not_depend_on_how_a_crystal_is_written(
    rewrite, predict, expected, written
):
    rng = np.random.default_rng(RNG_SEED)
    found = predict([rewrite(crystal, rng) for crystal in written])
    spread = np.std(expected)
    assert spread > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * spread)


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_crystal_written_in_another_way_is_the_same_crystal(rewrite, written):
    rng = np.random.default_rng(RNG_SEED)
    for crystal in written:
        other = rewrite(crystal, rng)
        assert other.composition.reduced_formula == crystal.composition.reduced_formula
        assert other.density == pytest.approx(crystal.density, rel=1e-6)


def test_another_crystal_has_another_prediction(predict, expected, written):
    """Far beyond the tolerance above, although random weights care little for lengths."""
    found = predict([crystal.apply_strain(0.01, inplace=False) for crystal in written])
    assert (np.abs(found - expected) > 1e-8).all()
