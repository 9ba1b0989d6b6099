"""Whatever a structure is, it is refused with a reason or has a graph of finite numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.checks import find_problem
from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import GraphSettings, build_graph
from jaxmat.data.formats.dicts import parse_dict
from jaxmat.data.formats.sites import one_atom_a_site
from jaxmat.data.reading import read as read_sources
from jaxmat.errors import UserError

from .conftest import bounded, fuzz

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # pymatgen's remarks
    pytest.mark.filterwarnings("error:::jaxmat"),
]

SETTINGS = [
    GraphSettings(),
    GraphSettings("reference"),
    GraphSettings("reference", canonical=False, compress=False),
]

strange = st.sampled_from([0.0, -0.0, 1e-300, 1e-8, 1e5, 1e200, -1e308, np.inf, -np.inf, np.nan])
lengths = st.floats(0.3, 50) | strange
angles = st.floats(5, 175) | st.sampled_from([0.0, 90.0, 120.0, 180.0, -60.0, np.nan])
rows = st.lists(st.floats(-30, 30) | strange, min_size=3, max_size=3)
edges = st.floats(1, 100)


@st.composite
def matrices(draw: st.DrawFn) -> list[list[float]]:
    """Ordinary cells, needles, flat and skewed ones, three rows of anything."""
    kind = draw(st.sampled_from(["cubic", "ordinary", "sheared", "flat", "anything"]))
    if kind == "cubic":
        return (np.eye(3) * draw(edges)).tolist()
    if kind == "ordinary":
        sides = draw(st.tuples(*[st.floats(2, 12)] * 3))
        return Lattice.from_parameters(
            *sides, *draw(st.tuples(*[st.floats(60, 110)] * 3))
        ).matrix.tolist()
    matrix = np.diag(draw(st.tuples(*[edges] * 3)))
    if kind == "sheared":
        return (
            matrix + np.tril(np.reshape(draw(st.tuples(*[st.floats(-200, 200)] * 9)), (3, 3)), -1)
        ).tolist()
    if kind == "flat":
        matrix[2] = draw(st.floats(-1, 1)) * matrix[0] + draw(st.floats(-1, 1)) * matrix[1]
        return matrix.tolist()
    return [draw(rows) for _ in range(3)]


symbols = st.sampled_from(
    ["H", "D", "T", "Fe", "O", "Xe", "Fe3+", "O2-", "X", "X0+", "Qq", "Md", "Og", "", "  ", "1"]
) | st.text(max_size=4)
occupancies = st.sampled_from([1, 1, 1, 1, 0.5, 0, 2, -1, float("nan"), "1", None])
species = st.lists(
    st.fixed_dictionaries({"element": symbols, "occu": occupancies}), min_size=0, max_size=2
) | st.sampled_from(["H", "O", "Si", "Xe", "U"]).map(lambda x: [{"element": x, "occu": 1}])
positions = st.lists(st.floats(-1, 2), min_size=3, max_size=3)
sites = st.fixed_dictionaries(
    {"species": species, "abc": positions | st.lists(st.floats(-120, 120) | strange, max_size=4)}
)
plain_sites = st.fixed_dictionaries(
    {"species": st.just([{"element": "Si", "occu": 1}]), "abc": positions}
)


def check(crystal: Content) -> None:
    """A crystal that passes has graphs of finite numbers."""
    if find_problem(crystal):
        return
    for settings in SETTINGS:
        graph = build_graph(crystal, settings)
        assert graph.site_count.sum() == len(crystal.atomic_number)
        assert (graph.bond_length >= 0.49).all() and (graph.bond_length < 24.1).all()
        assert (np.abs(graph.angle_cosine) <= 1).all()
        assert (graph.bond_multiplicity > 0).all() and (graph.angle_multiplicity > 0).all()


def crystal(matrix: object, *where: object) -> dict[str, object]:
    silicon = [{"element": "Si", "occu": 1}]
    return {
        "@class": "Structure",
        "lattice": {"matrix": matrix},
        "sites": [{"species": silicon, "abc": abc} for abc in where],
    }


@fuzz
@example(crystal([[40, 0, 0], [0, 40, 0], [0, 0, 40]], [0, 0, 0]))
@example(crystal([[40, 0, 0], [0, 40, 0], [0, 0, 40]], [-99, -99, -99], [99, 99, 99.5]))
@example(crystal([[1e5, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0], [0.5, 0.5, 0.5]))
@example(crystal([[1e4, 1e4, 1e4], [1, 0, 0], [0, 1, 0]], [0, 0, 0], [0.5, 0.5, 0.5]))
@example(crystal([[0.6, 0, 0], [30, 0.6, 0], [30, 30, 3]], [0, 0, 0]))
@example(crystal([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]], [0, 0, 0]))
@example(crystal([[90, 0, 0], [0, 90, 0], [0, 0, 90]], *[[0, 0, 0]] * 3000))
@given(
    st.fixed_dictionaries(
        {
            "@class": st.just("Structure"),
            "lattice": st.fixed_dictionaries(
                {"matrix": matrices()}, optional={"pbc": st.lists(st.booleans(), max_size=4)}
            ),
            "sites": st.lists(sites, max_size=6) | st.lists(plain_sites, min_size=1, max_size=12),
        }
    )
)
def test_dicts(data: dict[str, object]) -> None:
    with bounded():
        try:
            crystal, _ = one_atom_a_site(parse_dict(data))
        except UserError:
            return
        check(crystal)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@fuzz
@given(
    st.fixed_dictionaries(
        {"@class": st.just("Structure")},
        optional={"lattice": anything, "sites": anything | st.lists(anything)},
    )
)
def test_dicts_of_anything(data: dict[str, object]) -> None:
    with bounded(), pytest.raises(UserError):
        if find_problem(one_atom_a_site(parse_dict(data))[0]):
            raise UserError("refused")


SALT = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
FILES = {
    ".cif": SALT.to(fmt="cif"),
    ".vasp": SALT.to(fmt="poscar"),
    ".json": json.dumps(SALT.as_dict()),
    ".xyz": '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2 2\n',
}
words = st.sampled_from(
    ["", " ", "\n", "\r\n", "\ufeff", "\0", "?", ".", "-1", "0", "2", "nan", "inf", "1e308", "1e-9"]
    + ["99999", "10" * 30, "Qq", "X", "'", '"', ";", "loop_", "data_b", "#", "[", "{", "é", "_cell"]
) | st.text(max_size=6)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A text with a few words replaced, dropped or doubled, maybe cut off, maybe in UTF-16."""
    parts = re.split(r"(\s+|[\",:])", text)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(parts)))
        width = draw(st.integers(0, 3))
        parts[place : place + width] = draw(st.lists(words, max_size=3))
    whole = "".join(parts).encode(draw(st.sampled_from(3 * ["utf-8"] + ["utf-16"])), "replace")
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 3)) == 0 else whole


@pytest.mark.parametrize("suffix", FILES)
def test_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"

    @fuzz
    @given(damaged(FILES[suffix]) | st.binary(max_size=200))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        with bounded():
            for entry in read_sources(path):
                assert (entry.content is None) == bool(entry.reason)
                assert "Error" not in entry.reason  # nothing comes from code that did not expect it
                if entry.content is not None:
                    check(entry.content)

    read()
