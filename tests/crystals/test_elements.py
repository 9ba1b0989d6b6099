from __future__ import annotations

import numpy as np
from pymatgen.core import Element

from jaxmat.crystals.elements import atom_features


def test_the_table_has_a_row_of_bits_for_each_atomic_number():
    table = atom_features()
    assert table.shape == (104, 92)
    assert table.dtype == np.float32
    assert not table[0].any()
    assert set(np.unique(table)) == {0.0, 1.0}
    # Nine binned properties of which the heaviest elements lack some.
    assert set(table[1:].sum(axis=1)) <= {6.0, 7.0, 8.0, 9.0}


def test_elements_of_a_group_or_a_block_share_its_bit():
    table = atom_features()
    rows = {symbol: table[Element(symbol).Z] for symbol in ("F", "Cl", "Br", "Na", "Fe")}
    halogens = (rows["F"] * rows["Cl"] * rows["Br"]).sum()
    assert halogens >= 3  # group, valence electrons, block
    assert (rows["Na"] * rows["Fe"] * rows["F"]).sum() == 0


def test_only_some_heavy_elements_share_a_row():
    table = atom_features()
    shared = {frozenset(np.flatnonzero((table == row).all(axis=1)).tolist()) for row in table[1:]}
    symbols = {
        tuple(Element.from_Z(number).symbol for number in sorted(group))
        for group in shared
        if len(group) > 1
    }
    assert symbols == {
        ("La", "Ce"),
        ("Sm", "Gd"),
        ("Ho", "Er"),
        ("Th", "Np"),
        ("Am", "Cm"),
        ("Bk", "Cf", "Es", "Fm", "Md", "No", "Lr"),
    }
