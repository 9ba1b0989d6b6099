"""PyTorch ALIGNN state dict, as arrays, → network description and variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.errors import UserError, listed
from jaxmat.models.layers import radial_centers
from jaxmat.models.network import build_network

# torch module → jaxmat module; every entry of a state dict must match exactly one rule.
_MODULES = {
    r"atom_embedding\.layer\.0": "trunk/atom_embedding/linear",
    r"atom_embedding\.layer\.1": "trunk/atom_embedding/norm",
    r"(edge|angle)_embedding\.1\.layer\.0": r"trunk/\1_embedding_0/linear",
    r"(edge|angle)_embedding\.1\.layer\.1": r"trunk/\1_embedding_0/norm",
    r"(edge|angle)_embedding\.2\.layer\.0": r"trunk/\1_embedding_1/linear",
    r"(edge|angle)_embedding\.2\.layer\.1": r"trunk/\1_embedding_1/norm",
    r"alignn_layers\.(\d+)\.(node|edge)_update\.(\w+)": r"trunk/alignn_layers_\1/\2_update/\3",
    r"gcn_layers\.(\d+)\.(\w+)": r"trunk/gcn_layers_\1/\2",
    r"fc": "heads_0/out",
    r"fc\.0": "heads_0/hidden_0",
    r"fc\.1": "heads_0/out",
    r"conv_to_fc\.(\d+)": r"heads_\1/hidden_0",
    r"fc_hp\.(\d+)\.0": r"heads_\1/hidden_1",
    r"fc_out\.(\d+)": r"heads_\1/out",
}
_CENTERS = {"edge_embedding.0.centers": (0.0, 8.0), "angle_embedding.0.centers": (-1.0, 1.0)}
_TRACKED = ".num_batches_tracked"


class Converted(NamedTuple):
    """A network and its weights.

    Attributes:
        trunk: options for `build_network`.
        heads: property → options for `build_network`.
        variables: {"params", "batch_stats"}.
        batches_tracked: torch's count of training batches, by name of its buffer.
    """

    trunk: dict[str, Any]
    heads: dict[str, dict[str, Any]]
    variables: dict[str, Any]
    batches_tracked: dict[str, int]


def from_state_dict(arrays: Mapping[str, np.ndarray], properties: Sequence[str]) -> Converted:
    """Returns the network of a PyTorch ALIGNN state dict with its weights.

    Args:
        arrays: the state dict, name → array.
        properties: name of each head, in order.

    Raises:
        UserError: an entry that no rule covers, that is missing or of a wrong shape, radial basis
            centers other than the published ones, or another number of heads than properties.
    """
    leaves: dict[str, np.ndarray] = {}
    tracked: dict[str, int] = {}
    problems = [f"{name}: missing" for name in _CENTERS if name not in arrays]
    for name, array in arrays.items():
        if name in _CENTERS:
            if array.size < 2 or not np.array_equal(
                array, radial_centers(*_CENTERS[name], array.size)
            ):
                problems.append(f"{name}: not the centers of the published radial basis")
        elif name.endswith(_TRACKED) and _module_path(name.removesuffix(_TRACKED)):
            tracked[name] = int(array)
        elif path := leaf_path(name, array.ndim):
            leaves[path] = array.T if path.endswith("/kernel") else array
        else:
            problems.append(f"{name}: unknown entry")
    if "params/trunk/edge_embedding_1/linear/kernel" not in leaves:
        problems.append("edge_embedding.2.layer.0.weight: missing or not a matrix")
    numbers = sorted({int(path.split("/")[1][6:]) for path in leaves if "/heads_" in path})
    if numbers != list(range(len(properties))):
        problems.append(f"the model has {len(numbers)} heads but {len(properties)} are named")
    _raise(problems)
    named = {
        re.sub(r"/heads_(\d+)/", lambda m: f"/heads_{properties[int(m[1])]}/", path): array
        for path, array in leaves.items()
    }
    kind = "linear_pair" if "fc.0.weight" in arrays else "mlp"
    trunk = _trunk_options(named, arrays)
    heads = {name: _head_options(named, name, kind) for name in properties}
    _raise(_misfits(named, trunk, heads))
    return Converted(trunk, heads, unflatten_dict(named, sep="/"), tracked)


def leaf_path(name: str, ndim: int) -> str | None:
    """Returns where a torch entry goes, heads by number, or None where no rule covers it.

    For example "fc_out.2.weight" → "params/heads_2/out/kernel".
    """
    module, _, leaf = name.rpartition(".")
    known = {
        "weight": "params/{}/kernel" if ndim == 2 else "params/{}/scale",
        "bias": "params/{}/bias",
        "running_mean": "batch_stats/{}/mean",
        "running_var": "batch_stats/{}/var",
    }
    path = _module_path(module)
    return known[leaf].format(path) if path and leaf in known else None


def _module_path(module: str) -> str | None:
    for pattern, replacement in _MODULES.items():
        if match := re.fullmatch(pattern, module):
            return match.expand(replacement)
    return None


def _trunk_options(
    leaves: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    def layers(kind: str) -> int:
        return len({path.split("/")[2] for path in leaves if f"/{kind}_layers_" in path})

    embedding = leaves["params/trunk/edge_embedding_1/linear/kernel"]
    return {
        "kind": "alignn",
        "width": embedding.shape[1],
        "embedding_width": embedding.shape[0],
        "alignn_layers": layers("alignn"),
        "gcn_layers": layers("gcn"),
        "bond_bins": len(arrays["edge_embedding.0.centers"]),
        "angle_bins": len(arrays["angle_embedding.0.centers"]),
    }


def _head_options(leaves: Mapping[str, np.ndarray], name: str, kind: str) -> dict[str, Any]:
    prefix = f"params/heads_{name}"
    hidden = [path for path in leaves if re.fullmatch(rf"{prefix}/hidden_\d/kernel", path)]
    if not hidden:
        return {"kind": "linear"}
    options = {"kind": kind, "width": leaves[hidden[0]].shape[1]}
    return options | {"hidden_layers": len(hidden)} if kind == "mlp" else options


def _misfits(
    leaves: Mapping[str, np.ndarray], trunk: dict[str, Any], heads: dict[str, dict[str, Any]]
) -> list[str]:
    """Returns which leaves the described network lacks, has over or wants of another shape."""
    none = np.zeros(0, np.int32)
    atom = CrystalGraph(np.ones(1, np.int32), np.ones(1, np.int32), *[none] * 8)
    batch = batch_crystals([atom], np.zeros((1, len(heads))), Shape(2, 2, 1, 0))
    network = build_network(trunk, heads)
    wanted = flatten_dict(jax.eval_shape(lambda: network.init(jax.random.key(0), batch)), sep="/")
    return [
        f"{path}: {'missing' if path not in leaves else 'unknown entry'}"
        for path in sorted(wanted.keys() ^ leaves.keys())
    ] + [
        f"{path}: shape {leaves[path].shape} instead of {wanted[path].shape}"
        for path in sorted(wanted.keys() & leaves.keys())
        if leaves[path].shape != wanted[path].shape
    ]


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise UserError("Not an ALIGNN state dict that jaxmat knows:\n" + listed(problems))
