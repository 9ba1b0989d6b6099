from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import golden
from jaxmat.convert.state_dict import from_state_dict, to_state_dict
from jaxmat.errors import UserError
from jaxmat.model import variable_shapes
from jaxmat.models.network import build_network

FOLDER = Path(__file__).parents[1] / "golden"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return golden.read_arrays(FOLDER / "single_weights.npz")


def test_every_entry_is_accounted_for(arrays):
    converted = from_state_dict(arrays, ["gap"])
    leaves = golden.flat(converted.variables)
    centers = [name for name in arrays if name.endswith(".centers")]
    tracked = [name for name in arrays if name.endswith(".num_batches_tracked")]
    assert len(centers) == 2 and sorted(converted.batches_tracked) == sorted(tracked)
    assert len(leaves) == len(arrays) - len(centers) - len(tracked)
    assert sum(leaf.size for leaf in leaves.values()) == sum(
        array.size for name, array in arrays.items() if name not in centers + tracked
    )


def test_kernels_are_transposed_and_nothing_else_is_changed(arrays):
    leaves = golden.flat(from_state_dict(arrays, ["gap"]).variables)
    torch = "alignn_layers.1.edge_update"
    ours = "trunk/alignn_layers_1/edge_update"
    for leaf, expected in {
        f"params/{ours}/src_gate/kernel": arrays[f"{torch}.src_gate.weight"].T,
        f"params/{ours}/src_gate/bias": arrays[f"{torch}.src_gate.bias"],
        f"params/{ours}/bn_nodes/scale": arrays[f"{torch}.bn_nodes.weight"],
        f"batch_stats/{ours}/bn_edges/var": arrays[f"{torch}.bn_edges.running_var"],
        "params/heads_gap/out/kernel": arrays["fc.weight"].T,
    }.items():
        np.testing.assert_array_equal(leaves[leaf], expected, err_msg=leaf)


def test_the_description_says_what_the_weights_are_for(arrays):
    converted = from_state_dict(arrays, ["gap"])
    assert converted.trunk == {
        "kind": "alignn",
        "width": 16,
        "embedding_width": 8,
        "alignn_layers": 2,
        "gcn_layers": 2,
        "bond_bins": 80,
        "angle_bins": 40,
    }
    assert converted.heads == {"gap": {"kind": "linear"}}


def test_heads_keep_their_order():
    arrays = golden.read_arrays(FOLDER / "mpt_weights.npz")
    names = ["c", "a", "b"]
    converted = from_state_dict(arrays, names)
    assert list(converted.heads) == names
    for number, name in enumerate(names):
        kernel = converted.variables["params"][f"heads_{name}"]["out"]["kernel"]
        np.testing.assert_array_equal(kernel, arrays[f"fc_out.{number}.weight"].T)
        assert converted.heads[name]["kind"] == "mlp"
        assert converted.heads[name]["hidden_layers"] == 2


def test_a_pair_of_linears_is_a_new_prediction_head(arrays):
    """Its names are fc.0 and fc.1; between them there is no activation, unlike in a MPT head."""
    del arrays["fc.weight"], arrays["fc.bias"]
    shapes = {
        "fc.0.weight": (64, 16),
        "fc.0.bias": (64,),
        "fc.1.weight": (1, 64),
        "fc.1.bias": (1,),
    }
    arrays |= {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    assert from_state_dict(arrays, ["gap"]).heads == {"gap": {"kind": "linear_pair", "width": 64}}


def change(name: str, array: np.ndarray | None) -> Callable[[dict[str, np.ndarray]], None]:
    """Sets an entry, or takes it away."""

    def apply(arrays: dict[str, np.ndarray]) -> None:
        arrays.pop(name, None)
        if array is not None:
            arrays[name] = array

    return apply


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def moved_centers(arrays: dict[str, np.ndarray]) -> None:
    arrays["edge_embedding.0.centers"] = arrays["edge_embedding.0.centers"] + np.float32(1e-6)


NOT_READABLE = {
    "an extra weight": (change("extra.weight", zeros(3)), "extra.weight: "),
    "an extra count": (
        change("x.num_batches_tracked", np.array(1)),
        "x.num_batches_tracked: ",
    ),
    "an extra leaf": (change("fc.gain", zeros(1)), "fc.gain: "),
    "other centers": (moved_centers, "edge_embedding.0.centers: "),
    "one center": (change("angle_embedding.0.centers", zeros(1)), "angle_embedding.0.centers: "),
    "no centers": (change("angle_embedding.0.centers", None), "angle_embedding.0.centers: "),
    "no width": (
        change("edge_embedding.2.layer.0.weight", None),
        "edge_embedding.2.layer.0.weight: ",
    ),
    "no bias": (change("gcn_layers.1.src_gate.bias", None), "gcn_layers.1.src_gate.bias: "),
    "no statistics": (
        change("gcn_layers.1.bn_edges.running_var", None),
        "gcn_layers.1.bn_edges.running_var: ",
    ),
    "no count": (
        change("gcn_layers.1.bn_edges.num_batches_tracked", None),
        "gcn_layers.1.bn_edges.num_batches_tracked: ",
    ),
    "no head": (change("fc.weight", None), "fc.weight: "),
    "a narrow bias": (
        change("gcn_layers.0.bn_nodes.bias", zeros(15)),
        "gcn_layers.0.bn_nodes.bias: ",
    ),
    "double precision": (change("fc.bias", np.zeros(1)), "fc.bias: "),
}


@pytest.mark.parametrize("case", NOT_READABLE)
def test_what_does_not_fit_is_named(case, arrays):
    apply, named = NOT_READABLE[case]
    apply(arrays)
    with pytest.raises(UserError) as error:
        from_state_dict(arrays, ["gap"])
    assert f"  {named}" in str(error.value)


def test_several_problems_are_reported_together(arrays):
    arrays |= {"one.weight": zeros(3), "two.bias": zeros(3)}
    with pytest.raises(UserError, match=r"(?s)one\.weight.*two\.bias"):
        from_state_dict(arrays, ["gap"])


@pytest.mark.parametrize("names", [[], ["gap", "density"]])
def test_each_head_needs_a_name(names, arrays):
    with pytest.raises(UserError, match="1 heads"):
        from_state_dict(arrays, names)


@pytest.mark.parametrize(
    ("file", "names"), [("single_weights.npz", ["gap"]), ("mpt_weights.npz", ["c", "a", "b"])]
)
def test_there_and_back_again(file, names):
    arrays = golden.read_arrays(FOLDER / file)
    converted = from_state_dict(arrays, names)
    back = to_state_dict(converted.heads, converted.variables, converted.batches_tracked)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype


def test_the_variables_are_those_of_the_described_network(arrays):
    converted = from_state_dict(arrays, ["gap"])
    shapes = variable_shapes(build_network(converted.trunk, converted.heads))
    assert shapes == {leaf: x.shape for leaf, x in golden.flat(converted.variables).items()}
