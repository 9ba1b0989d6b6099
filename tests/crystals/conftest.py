from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks import golden


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def structures(golden_folder) -> dict[int, Structure]:
    """Real crystals, by their golden numbers."""
    return golden.read_structures(golden_folder)


@pytest.fixture(scope="session")
def random_crystals() -> list[Structure]:
    """Triclinic crystals of 3 to 6 sites without any symmetry."""
    rng = np.random.default_rng(0)
    crystals = []
    for sites in (3, 4, 5, 6):
        lattice = Lattice.from_parameters(*rng.uniform(3, 6, 3), *rng.uniform(65, 110, 3))
        elements = rng.choice(["Si", "O", "Fe", "Na"], size=sites)
        crystals.append(Structure(lattice, elements, rng.uniform(-1, 2, size=(sites, 3))))
    return crystals
