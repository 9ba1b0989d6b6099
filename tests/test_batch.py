from __future__ import annotations

import numpy as np
import pytest

from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph


def crystal(seed: int, sites: int, bonds: int, angles: int) -> CrystalGraph:
    """Random rows, sorted as those of a real crystal."""
    rng = np.random.default_rng(seed)
    return CrystalGraph(
        atomic_number=rng.integers(1, 90, sites, np.int32),
        site_count=rng.integers(1, 4, sites, np.int32),
        bond_sender=rng.integers(0, sites, bonds, np.int32),
        bond_receiver=np.sort(rng.integers(0, sites, bonds, np.int32)),
        bond_length=rng.uniform(1, 5, bonds),
        bond_multiplicity=rng.integers(1, 5, bonds, np.int32),
        angle_sender=rng.integers(0, max(bonds, 1), angles, np.int32),
        angle_receiver=np.sort(rng.integers(0, max(bonds, 1), angles, np.int32)),
        angle_cosine=rng.uniform(-1, 1, angles),
        angle_multiplicity=rng.integers(1, 5, angles, np.int32),
    )


CRYSTALS = [crystal(0, 2, 5, 9), crystal(1, 1, 0, 0), crystal(2, 3, 4, 7)]
TARGET = np.array([[1.0, np.nan], [np.nan, 5.0], [3.0, 6.0]])
TIGHT, LOOSE = Shape(4, 7, 10, 16), Shape(6, 16, 24, 40)


@pytest.mark.parametrize("shape", [TIGHT, LOOSE])
def test_rows_of_each_crystal_come_back(shape):
    batch = batch_crystals(CRYSTALS, TARGET, shape, np.float64)
    site = bond = angle = 0
    for i, graph in enumerate(CRYSTALS):
        sites, bonds, angles = (
            slice(start, start + count)
            for start, count in (
                (site, batch.crystals.n_node[i]),
                (bond, batch.crystals.n_edge[i]),
                (angle, batch.angles.n_edge[i]),
            )
        )
        nodes, edges, corners = batch.crystals.nodes, batch.crystals.edges, batch.angles.edges
        found = CrystalGraph(
            atomic_number=nodes["atomic_number"][sites],
            site_count=nodes["count"][sites],
            bond_sender=batch.crystals.senders[bonds] - site,
            bond_receiver=batch.crystals.receivers[bonds] - site,
            bond_length=edges["length"][bonds],
            bond_multiplicity=edges["multiplicity"][bonds],
            angle_sender=batch.angles.senders[angles] - bond,
            angle_receiver=batch.angles.receivers[angles] - bond,
            angle_cosine=corners["cosine"][angles],
            angle_multiplicity=corners["multiplicity"][angles],
        )
        for name, one, other in zip(CrystalGraph._fields, found, graph, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"crystal {i}, {name}")
        bond_count = graph.bond_multiplicity * graph.site_count[graph.bond_receiver]
        np.testing.assert_array_equal(edges["count"][bonds], bond_count)
        np.testing.assert_array_equal(
            corners["count"][angles], graph.angle_multiplicity * bond_count[graph.angle_receiver]
        )
        site, bond, angle = sites.stop, bonds.stop, angles.stop


@pytest.mark.parametrize("shape", [TIGHT, LOOSE])
def test_padding_weighs_nothing_and_belongs_to_the_last_crystal(shape):
    batch = batch_crystals(CRYSTALS, TARGET, shape)
    for values, real in (
        (batch.crystals.nodes["count"], 6),
        (batch.crystals.edges["multiplicity"], 9),
        (batch.crystals.edges["count"], 9),
        (batch.angles.edges["multiplicity"], 16),
        (batch.angles.edges["count"], 16),
        (batch.crystal_mask, 3),
    ):
        assert (values[:real] > 0).all()
        assert (values[real:] == 0).all()
    # Padding leads to padding, and the sorting by receiver goes on.
    assert (batch.crystals.senders[9:] >= 6).all() and (batch.angles.senders[16:] >= 9).all()
    for graph in (batch.crystals, batch.angles):
        assert (np.diff(graph.receivers) >= 0).all()
    assert (batch.crystals.receivers[9:] >= 6).all() and (batch.angles.receivers[16:] >= 9).all()
    assert (batch.crystals.n_node.sum(), batch.crystals.n_edge.sum()) == shape[1:3]
    assert batch.angles.n_edge.sum() == shape.angles
    np.testing.assert_array_equal(batch.angles.n_node, batch.crystals.n_edge)


def test_missing_labels_are_zero_and_masked():
    batch = batch_crystals(CRYSTALS, TARGET, LOOSE)
    np.testing.assert_array_equal(batch.target[:3], [[1, 0], [0, 5], [3, 6]])
    np.testing.assert_array_equal(batch.target_mask[:3], [[1, 0], [0, 1], [1, 1]])
    assert not batch.target[3:].any() and not batch.target_mask[3:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes(dtype):
    batch = batch_crystals(CRYSTALS, TARGET, LOOSE, dtype)
    floats = [*batch.crystals.edges.values(), *batch.angles.edges.values(), *batch[2:]]
    floats.append(batch.crystals.nodes["count"])
    assert {array.dtype for array in floats} == {np.dtype(dtype)}
    integers = [batch.crystals.nodes["atomic_number"]]
    for graph in (batch.crystals, batch.angles):
        integers += [graph.senders, graph.receivers, graph.n_node, graph.n_edge]
    assert {array.dtype for array in integers} == {np.dtype(np.int32)}


@pytest.mark.parametrize("dimension", Shape._fields)
def test_crystals_that_do_not_fit_are_refused(dimension):
    """The tight shape has not a row to spare: one less of any kind is too few."""
    batch_crystals(CRYSTALS, TARGET, TIGHT)
    short = TIGHT._replace(**{dimension: getattr(TIGHT, dimension) - 1})
    with pytest.raises(ValueError, match="do not fit"):
        batch_crystals(CRYSTALS, TARGET, short)
