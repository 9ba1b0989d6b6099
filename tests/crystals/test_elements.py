from __future__ import annotations

import runpy

import numpy as np
import pytest
from pymatgen.core import Element

from jaxmat.crystals.elements import atom_features, element_properties, standard_properties


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


def test_properties_are_those_of_the_elements_and_missing_ones_are_stated():
    names, units, values, _ = element_properties()
    assert values.shape == (104, 19) and len(set(names)) == len(units) == 19
    assert np.isnan(values[0]).all()

    def known(symbol, name):
        return values[Element(symbol).Z, names.index(name)]

    assert known("Fe", "atomic_mass") == 55.845 and units[names.index("atomic_mass")] == "u"
    assert known("F", "electronegativity") == 3.98
    assert units[names.index("electronegativity")] == "Pauling scale"
    assert known("W", "melting_point") > 3600 and units[names.index("melting_point")] == "K"
    assert (known("Gd", "period"), known("Gd", "group"), known("Gd", "valence_f")) == (6, 3, 7)
    assert (known("As", "valence_s"), known("As", "valence_p"), known("As", "valence_d")) == (
        (2, 3, 10)
    )
    missing = {names[column] for column in np.flatnonzero(np.isnan(values[Element("He").Z]))}
    assert missing == {"electronegativity", "atomic_radius", "density", "bulk_modulus"}


def test_missing_properties_are_the_median_and_standard_ones_have_deviation_one():
    properties = element_properties()
    electronegativity = properties.values[:, properties.names.index("electronegativity")]
    filled = properties.filled
    assert filled[Element("He").Z, 3] == np.nanmedian(electronegativity)
    assert not np.isnan(filled[1:]).any()
    standard = standard_properties()
    assert standard.dtype == np.float32 and not standard[0].any()
    np.testing.assert_allclose(standard[1:].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standard[1:].std(axis=0), 1, atol=1e-6)


def test_the_table_is_what_its_tool_makes_of_pymatgen(request):
    root = request.config.rootpath
    script = runpy.run_path(str(root / "tools" / "make_element_properties.py"))
    text = (root / "jaxmat" / "crystals" / "element_properties.txt").read_text(encoding="utf-8")
    made = script["make_table"]()
    if made.splitlines()[0] != text.splitlines()[0]:
        pytest.skip("the table is of another version of pymatgen")
    assert made == text
