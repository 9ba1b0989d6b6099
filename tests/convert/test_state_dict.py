from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from benchmarks import golden
from jaxmat.bundles.model import variable_shapes
from jaxmat.convert.state_dict import Arrays, from_state_dict, to_state_dict, torch_names
from jaxmat.errors import UserError
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


def moved_centers(arrays: dict[str, np.ndarray]) -> None:
    arrays["edge_embedding.0.centers"] = arrays["edge_embedding.0.centers"] + np.float32(1e-6)


GATE = "gcn_layers.1.src_gate.weight"
BINS = "edge_embedding.1.layer.0.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda a: a.update({"extra.weight": np.zeros(3)}),
            "extra.weight: expected nothing, found float64[3]",
        ),
        (lambda a: a.update({"x.num_batches_tracked": a["fc.bias"]}), "x.num_batches_tracked: exp"),
        (lambda a: a.update({"fc.gain": np.zeros(1)}), "fc.gain: expected nothing"),
        (lambda a: a.update({"fc_out.0.weight": a["fc.weight"]}), "fc_out.0.weight: expected noth"),
        (moved_centers, "edge_embedding.0.centers: not the centers"),
        (
            lambda a: a.update({"angle_embedding.0.centers": np.zeros(1, np.float32)}),
            "angle_embedding.0.centers: expected float32[40], found float32[1]",
        ),
        (
            lambda a: a.pop("angle_embedding.0.centers"),
            "angle_embedding.0.centers: expected float32[40], found nothing",
        ),
        (
            lambda a: a.pop("edge_embedding.2.layer.0.weight"),
            "edge_embedding.2.layer.0.weight: expected a matrix, found nothing",
        ),
        (lambda a: a.update({BINS: a[BINS][:, 0]}), f"{BINS}: expected a matrix, found float32[8]"),
        (lambda a: a.update({BINS: a[BINS][:, :1]}), f"{BINS}: expected a matrix, found"),
        (lambda a: a.pop(GATE), f"{GATE}: expected float32[16, 16], found nothing"),
        (
            lambda a: a.update({GATE: a[GATE][:15]}),
            f"{GATE}: expected float32[16, 16], found float32[15, 16]",
        ),
        (
            lambda a: a.update({GATE: a[GATE].astype(np.float64)}),
            f"{GATE}: expected float32[16, 16], found float64[16, 16]",
        ),
        (
            lambda a: a.pop("gcn_layers.1.bn_edges.running_var"),
            "gcn_layers.1.bn_edges.running_var: expected float32[16], found nothing",
        ),
        (
            lambda a: a.pop("gcn_layers.0.bn_nodes.num_batches_tracked"),
            "gcn_layers.0.bn_nodes.num_batches_tracked: expected int64[], found nothing",
        ),
        (lambda a: a.pop("fc.weight"), "fc.weight: expected float32[1, 16], found nothing"),
        (
            lambda a: a.update({"fc.bias": np.float32(0.7)}),
            "fc.bias: expected float32[1], found float32[]",
        ),
        (lambda a: a.clear(), "edge_embedding.2.layer.0.weight: expected a matrix, found nothing"),
    ],
)
def test_what_does_not_fit_is_named(change, named, arrays):
    change(arrays)
    with pytest.raises(UserError) as error:
        from_state_dict(arrays, ["gap"])
    assert named in str(error.value)


@pytest.mark.parametrize("properties", [[], ["gap", "density"]])
def test_another_number_of_properties_is_refused(properties, arrays):
    with pytest.raises(UserError, match=r"has 1 head, but"):
        from_state_dict(arrays, properties)


def test_one_name_for_two_heads_is_refused():
    arrays = golden.read_arrays(FOLDER / "mpt_weights.npz")
    with pytest.raises(UserError, match=r"named are a, b, a; give each head a name of its own"):
        from_state_dict(arrays, ["a", "b", "a"])


def test_several_problems_are_reported_together(arrays):
    arrays |= {"one.weight": np.zeros(3), "two.bias": np.zeros(3)}
    with pytest.raises(UserError, match=r"(?s)one\.weight.*two\.bias"):
        from_state_dict(arrays, ["gap"])


def test_a_network_with_layer_norms_is_refused_in_words(arrays):
    """As in alignn_atomwise: the same names, but no running statistics."""
    for name in list(arrays):
        if "running_" in name or "num_batches" in name:
            del arrays[name]
    with pytest.raises(UserError, match=r"layer norms.*alignn_atomwise"):
        from_state_dict(arrays, ["gap"])


@pytest.mark.parametrize("prefix", ["module.", "net.module."])
def test_a_network_within_another_module_is_refused_in_words(prefix, arrays):
    """The message was that edge_embedding.2.layer.0.weight is not there."""
    within = {prefix + name: array for name, array in arrays.items()}
    with pytest.raises(UserError, match=rf'begin with "{prefix}".*take this beginning off'):
        from_state_dict(within | {"n_averaged": np.array(3)}, ["gap"])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_another_precision_is_refused_in_words(dtype, arrays):
    """The message listed every entry."""
    cast = {n: x.astype(dtype) if x.dtype.kind == "f" else x for n, x in arrays.items()}
    with pytest.raises(UserError, match=rf"are {dtype}, .* save model\.float\(\)\.state_dict"):
        from_state_dict(cast, ["gap"])


def assert_same_bytes(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape), name
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize(
    ("name", "properties"), [("single", ["gap"]), ("mpt", ["density", "gap", "ax"])]
)
def test_going_back_gives_the_same_bytes(name, properties):
    arrays = golden.read_arrays(FOLDER / f"{name}_weights.npz")
    _, heads, variables, tracked = from_state_dict(arrays, properties)
    assert any(tracked.values())
    back = to_state_dict(heads, variables, tracked)
    assert_same_bytes(back, arrays)
    assert all(array.flags.c_contiguous for array in back.values())


HEADS = {
    "single": {"gap": {"kind": "linear"}},
    "new prediction head": {"gap": {"kind": "linear_pair", "width": 9}},
    "multi-property": {name: {"kind": "mlp", "hidden_layers": 1, "width": 5} for name in "ba"},
    "multi-property, deep": {
        name: {"kind": "mlp", "hidden_layers": 3, "width": 5} for name in "ba"
    },
    "fine-tuned from it": {"gap": {"kind": "mlp", "hidden_layers": 2, "width": 5}},
}
TRUNK = {
    "kind": "alignn",
    "width": 6,
    "embedding_width": 4,
    "alignn_layers": 1,
    "gcn_layers": 2,
    "bond_bins": 7,
    "angle_bins": 3,
}


def random_variables(heads: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = variable_shapes(build_network(TRUNK, heads))
    leaves = {name: rng.uniform(size=shape).astype("f4") for name, shape in shapes.items()}
    return unflatten_dict(leaves, sep="/")


@pytest.mark.parametrize("name", HEADS)
def test_a_network_of_ours_comes_back_from_torch(name):
    variables = random_variables(HEADS[name])
    arrays = to_state_dict(HEADS[name], variables, {})
    found = from_state_dict(arrays, list(HEADS[name]))
    assert found.trunk == TRUNK and found.heads == HEADS[name]
    assert not any(found.batches_tracked.values())
    assert_same_bytes(golden.flat(found.variables), golden.flat(variables))


def test_heads_have_the_published_names():
    variables = random_variables(HEADS["multi-property, deep"])
    arrays = to_state_dict(HEADS["multi-property, deep"], variables, {})
    names = {name for name in arrays if name.startswith(("fc", "conv_to_fc"))}
    modules = {"conv_to_fc.{}", "fc_hp.{}.0", "fc_hp.{}.1", "fc_out.{}"}
    expected = {module.format(i) for module in modules for i in range(2)}
    assert names == {f"{module}.{leaf}" for module in expected for leaf in ("weight", "bias")}


@pytest.mark.parametrize(
    "heads",
    [
        {"a": {"kind": "linear"}, "b": {"kind": "linear"}},
        {"a": {"kind": "mlp", "width": 5}, "b": {"kind": "linear"}},
    ],
)
def test_heads_that_torch_does_not_have_are_refused(heads):
    with pytest.raises(UserError, match="has no network with 2 heads of kind"):
        to_state_dict(heads, random_variables(heads), {})


@pytest.mark.parametrize(
    ("heads", "named"),
    [
        ({"a": {"kind": "mlp", "hidden_layers": 0}}, "a: hidden_layers=0, width=128"),
        ({"a": {"kind": "mlp"}, "b": {"kind": "mlp", "width": 5}}, "b: hidden_layers=2, width=5"),
    ],
)
def test_heads_of_sizes_that_torch_does_not_have_are_refused(heads, named):
    """They were written to a file that no network of PyTorch could read."""
    with pytest.raises(UserError, match=f"(?s)all of one size, with a hidden layer.*{named}"):
        to_state_dict(heads, random_variables(heads), {})


def test_a_trunk_that_torch_does_not_have_is_refused():
    leaf = "params/trunk/attention/kernel"
    with pytest.raises(UserError, match=f"no counterpart of:\n  {leaf}"):
        torch_names([leaf], HEADS["single"])


def test_the_variables_are_those_of_the_described_network(arrays):
    converted = from_state_dict(arrays, ["gap"])
    shapes = variable_shapes(build_network(converted.trunk, converted.heads))
    assert shapes == {leaf: x.shape for leaf, x in golden.flat(converted.variables).items()}
