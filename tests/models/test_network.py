from __future__ import annotations

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from jaxmat.batch import Shape, batch_crystals
from jaxmat.bundles.model import variable_shapes
from jaxmat.errors import UserError
from jaxmat.models.network import build_network

TRUNK = {"kind": "alignn", "width": 4, "embedding_width": 3, "alignn_layers": 1, "gcn_layers": 0}
HEADS = {
    "gap": {"kind": "linear"},
    "bulk_modulus": {"kind": "linear_pair", "width": 3},
    "a1": {"kind": "mlp", "hidden_layers": 2, "width": 5},
}


def test_leaves_are_named_after_their_parts():
    shapes = variable_shapes(build_network(TRUNK, HEADS))
    parts = {"/".join(path.split("/")[:3]) for path in shapes if path.startswith("params/trunk")}
    assert parts == {
        f"params/trunk/{part}"
        for part in (
            *("atom_embedding", "edge_embedding_0", "edge_embedding_1"),
            *("angle_embedding_0", "angle_embedding_1", "alignn_layers_0"),
        )
    }
    heads = {path: shape for path, shape in shapes.items() if "/heads_" in path}
    assert heads == {
        "params/heads_gap/out/kernel": (4, 1),
        "params/heads_gap/out/bias": (1,),
        "params/heads_bulk_modulus/hidden_0/kernel": (4, 3),
        "params/heads_bulk_modulus/hidden_0/bias": (3,),
        "params/heads_bulk_modulus/out/kernel": (3, 1),
        "params/heads_bulk_modulus/out/bias": (1,),
        "params/heads_a1/hidden_0/kernel": (4, 5),
        "params/heads_a1/hidden_0/bias": (5,),
        "params/heads_a1/hidden_1/kernel": (5, 5),
        "params/heads_a1/hidden_1/bias": (5,),
        "params/heads_a1/out/kernel": (5, 1),
        "params/heads_a1/out/bias": (1,),
    }


def test_columns_are_the_heads_in_order(lone_atom, float64):
    """Each head by hand, from the pooled vectors."""
    batch = batch_crystals([lone_atom], np.zeros((1, 3)), Shape(2, 2, 1, 0), np.float64)
    network = build_network(TRUNK, HEADS)
    rng = np.random.default_rng(0)
    shapes = variable_shapes(network)
    variables = unflatten_dict({k: rng.uniform(0.1, 0.9, v) for k, v in shapes.items()}, sep="/")
    pooled = network.apply(variables, batch, method="embed")
    assert pooled.shape == (2, 4)
    prediction = network.apply(variables, batch)
    assert prediction.shape == (2, 3)

    def linear(path, x):
        leaves = variables["params"]
        for part in path.split("/"):
            leaves = leaves[part]
        return x @ leaves["kernel"] + leaves["bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    x = np.asarray(pooled)
    pair = linear("heads_bulk_modulus/out", linear("heads_bulk_modulus/hidden_0", x))
    hidden = silu(linear("heads_a1/hidden_1", silu(linear("heads_a1/hidden_0", silu(x)))))
    expected = [linear("heads_gap/out", x), pair, linear("heads_a1/out", hidden)]
    np.testing.assert_allclose(prediction, np.concatenate(expected, axis=1))


@pytest.mark.parametrize(
    ("trunk", "heads", "message"),
    [
        ({"kind": "cgcnn"}, HEADS, "Trunk 'cgcnn' is unknown; use one of alignn"),
        ({}, HEADS, "Trunk None is unknown"),
        (TRUNK | {"widht": 3}, HEADS, "has no option widht; it has .*width"),
        (TRUNK | {"axis_name": "data"}, HEADS, "has no option axis_name"),
        (TRUNK | {"name": "x"}, HEADS, "has no option name"),
        (TRUNK | {"dtype": "bfloat16"}, HEADS, "has no option dtype"),
        (TRUNK | {"remat": True}, HEADS, "has no option remat"),
        (TRUNK, {}, "at least one head"),
        (TRUNK, {"band gap": HEADS["gap"]}, "'band gap' cannot name a head"),
        (TRUNK, {"a/b": HEADS["gap"]}, "'a/b' cannot name a head"),
        (TRUNK, {"gap": {"kind": "deep"}}, "Head kind 'deep' is unknown"),
        (TRUNK, {"gap": {"kind": "linear", "depth": 3}}, "Head kind 'linear' .*depth"),
    ],
)
def test_what_is_wrong_in_a_description_is_named(trunk, heads, message):
    with pytest.raises(UserError, match=message):
        build_network(trunk, heads)


def test_an_unknown_precision_is_named():
    with pytest.raises(UserError, match="'float16' is unknown; use one of float32, tensorfloat32"):
        build_network(TRUNK, HEADS, precision="float16")
