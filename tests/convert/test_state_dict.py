from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.convert.state_dict import from_state_dict
from jaxmat.errors import UserError

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


def narrow(arrays: dict[str, np.ndarray]) -> None:
    arrays["gcn_layers.0.bn_nodes.bias"] = np.zeros(15, np.float32)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.update({"extra.weight": np.zeros(3)}), "extra.weight: unknown entry"),
        (
            lambda a: a.update({"x.num_batches_tracked": np.array(1)}),
            "x.num_batches_tracked: unknown",
        ),
        (lambda a: a.update({"fc.gain": np.zeros(1)}), "fc.gain: unknown entry"),
        (moved_centers, "edge_embedding.0.centers: not the centers"),
        (
            lambda a: a.update({"angle_embedding.0.centers": np.zeros(1)}),
            "angle_embedding.0.centers: not",
        ),
        (lambda a: a.pop("angle_embedding.0.centers"), "angle_embedding.0.centers: missing"),
        (
            lambda a: a.pop("edge_embedding.2.layer.0.weight"),
            "edge_embedding.2.layer.0.weight: missing",
        ),
        (lambda a: a.pop("gcn_layers.1.src_gate.bias"), "gcn_layers_1/src_gate/bias: missing"),
        (
            lambda a: a.pop("gcn_layers.1.bn_edges.running_var"),
            "gcn_layers_1/bn_edges/var: missing",
        ),
        (lambda a: a.pop("fc.weight"), "heads_gap/out/kernel: missing"),
        (narrow, "gcn_layers_0/bn_nodes/bias: shape"),
        (lambda a: [a.pop("fc.weight"), a.pop("fc.bias")], "the model has 0 heads but 1 are named"),
    ],
)
def test_what_does_not_fit_is_named(change, named, arrays):
    change(arrays)
    with pytest.raises(UserError) as error:
        from_state_dict(arrays, ["gap"])
    assert named in str(error.value)


def test_several_problems_are_reported_together(arrays):
    arrays |= {"one.weight": np.zeros(3), "two.bias": np.zeros(3)}
    with pytest.raises(UserError, match=r"(?s)one\.weight.*two\.bias.*1 heads but 2 are named"):
        from_state_dict(arrays, ["gap", "density"])


def test_the_variables_are_those_of_the_described_network(arrays):
    model = golden.read_model(FOLDER / "single_weights.npz")
    crystals = golden.golden_crystals(golden.read_arrays(FOLDER / "graphs_canonical.npz"))[:1]
    batch = golden.together(crystals, np.zeros((1, 1)))
    with jax.enable_x64(True):
        expected = jax.eval_shape(lambda: model.network.init(jax.random.key(0), batch))
    assert jax.tree.structure(expected) == jax.tree.structure(model.variables)
