from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.contents import Contents
from jaxmat.data.fingerprint import fingerprint
from jaxmat.data.tables import Table

LABELS = np.array([1.0, 2.0])


def crystal(edge: float = 4.0, x: float = 0.5, element: str = "Cl") -> Structure:
    return Structure(Lattice.cubic(edge), ["Na", element], [[0, 0, 0], [x, 0.5, 0.5]])


def table(first: Structure, ids: tuple[str, str] = ("a", "b")) -> Table:
    return Table(name="t", ids=ids, contents=Contents.of([first, crystal(5.0)]), columns={})


@pytest.fixture
def usual() -> str:
    return fingerprint(table(crystal()), LABELS)


def test_fingerprints_in_models_of_the_past_hold(usual):
    assert usual == "c8dfc7359da5f8fea2f436abb198aa823dbc8cbd2e9ef34c41d40773d0b71cf2"


def test_the_order_of_rows_does_not_matter(usual):
    assert fingerprint(table(crystal()).take([1, 0]), LABELS[::-1]) == usual


def test_rounding_noise_of_readers_does_not_matter(usual):
    noisy = Structure(Lattice.cubic(4 + 1e-9), ["Na", "Cl"], [[-1e-9, 0, 0], [0.5, 0.5, 0.5]])
    assert fingerprint(table(noisy), LABELS) == usual


def test_ids_may_be_names_of_files_that_are_not_utf_8(usual):
    assert fingerprint(table(crystal(), ids=("a", "caf\udce9.xyz@0")), LABELS) != usual


@pytest.mark.parametrize(
    ("changed", "labels"),
    [
        (table(crystal(edge=4.001)), LABELS),
        (table(crystal(x=0.501)), LABELS),
        (table(crystal(element="Br")), LABELS),
        (table(crystal(), ids=("a", "c")), LABELS),
        (table(crystal()).take([0]), LABELS[:1]),
        (table(crystal()), LABELS[::-1]),
        (table(crystal()), LABELS + [0, 1e-9]),
    ],
)
def test_everything_else_does(changed, labels, usual):
    assert fingerprint(changed, labels) != usual
