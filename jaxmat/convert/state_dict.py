"""PyTorch ALIGNN state dict, as arrays, ↔ network description and variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.bundles.model import variable_shapes
from jaxmat.errors import UserError, counted, listed
from jaxmat.models.heads import MLPHead, make_head
from jaxmat.models.layers import radial_centers
from jaxmat.models.network import Options, build_network

Arrays = Mapping[str, np.ndarray]

# jaxmat module → torch module; every module of a trunk matches exactly one rule.
_TRUNK = {
    r"atom_embedding/linear": "atom_embedding.layer.0",
    r"atom_embedding/norm": "atom_embedding.layer.1",
    r"(edge|angle)_embedding_0/linear": r"\1_embedding.1.layer.0",
    r"(edge|angle)_embedding_0/norm": r"\1_embedding.1.layer.1",
    r"(edge|angle)_embedding_1/linear": r"\1_embedding.2.layer.0",
    r"(edge|angle)_embedding_1/norm": r"\1_embedding.2.layer.1",
    r"alignn_layers_(\d+)/(node|edge)_update/(\w+)": r"alignn_layers.\1.\2_update.\3",
    r"gcn_layers_(\d+)/(\w+)": r"gcn_layers.\1.\2",
}
# Kind of head → jaxmat module → torch module. A head of kind mlp has a number, see _head_module.
_HEADS: dict[str, dict[str, str]] = {
    "linear": {"out": "fc"},
    "linear_pair": {"hidden_0": "fc.0", "out": "fc.1"},
    "mlp": {},
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_WIDTHS = "edge_embedding.2.layer.0.weight"  # of which every network has one
_TRACKED = "num_batches_tracked"
_NEVER_NEGATIVE = ("running_var", _TRACKED)
_NOTHING = "nothing"


class Converted(NamedTuple):
    """A network and its weights.

    Attributes:
        trunk: options for `build_network`.
        heads: property → options for `build_network`.
        variables: {"params", "batch_stats"}, float32.
        batches_tracked: torch's count of training batches, by name of its buffer.
    """

    trunk: dict[str, Any]
    heads: dict[str, dict[str, Any]]
    variables: dict[str, Any]
    batches_tracked: dict[str, int]


def from_state_dict(arrays: Arrays, properties: Sequence[str]) -> Converted:
    """Returns the network of a PyTorch ALIGNN state dict with its weights.

    Args:
        arrays: the state dict, name → array.
        properties: name of each head, in order.

    Raises:
        UserError: the network is none that jaxmat has, has another number of heads than
            properties, or an entry is missing, unknown, of a wrong shape or dtype, holds radial
            basis centers other than the published ones, or weights that are not finite.
    """
    trunk, heads = _describe(arrays, properties)
    shapes = variable_shapes(build_network(trunk, heads))
    names = torch_names(shapes, heads)
    buffers = _buffers(names.values(), trunk["bond_bins"], trunk["angle_bins"])
    # Shapes alone: nothing of a size that a file promises is made before it is found there.
    expected = {n: f"float32{list(reversed(shapes[leaf]))}" for leaf, n in names.items()}
    expected |= {name: _form(buffer) for name, buffer in buffers.items()}
    found = {name: _form(array) for name, array in arrays.items()}
    _raise(
        [
            f"{name}: expected {expected.get(name, _NOTHING)}, found {found.get(name, _NOTHING)}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
    )
    _raise(
        [
            f"{name}: not the centers of the published radial basis"
            for name, buffer in buffers.items()
            if name.endswith(".centers") and not np.array_equal(arrays[name], buffer)
        ]
    )
    _raise(
        [f"{name}: not finite" for name in names.values() if not np.isfinite(arrays[name]).all()]
    )
    _raise(
        [f"{n}: negative" for n in arrays if n.endswith(_NEVER_NEGATIVE) and (arrays[n] < 0).any()]
    )
    leaves = {leaf: arrays[name].T for leaf, name in names.items()}
    tracked = {name: int(arrays[name]) for name in buffers if name.endswith(_TRACKED)}
    return Converted(trunk, heads, unflatten_dict(leaves, sep="/"), tracked)


def to_state_dict(
    heads: Mapping[str, Options], variables: Mapping[str, Any], batches_tracked: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Returns the PyTorch ALIGNN state dict of a network; the inverse of `from_state_dict`.

    Args:
        heads: property → options, in order.
        variables: {"params", "batch_stats"} of an ALIGNN with these heads.
        batches_tracked: torch's counts of training batches by name of their buffers; those that
            are left out are zero.

    Raises:
        UserError: the PyTorch ALIGNN has no such network.
    """
    leaves = {leaf: np.asarray(x) for leaf, x in flatten_dict(variables, sep="/").items()}
    names = torch_names(leaves, heads)
    bins = (
        len(leaves[f"params/trunk/{part}_embedding_0/linear/kernel"]) for part in ("edge", "angle")
    )
    arrays = _buffers(names.values(), *bins)
    arrays |= {name: np.array(n, np.int64) for name, n in batches_tracked.items()}
    # A transposed view would lie in memory as the leaf does.
    return arrays | {name: np.array(leaves[leaf].T, order="C") for leaf, name in names.items()}


def torch_names(leaves: Iterable[str], heads: Mapping[str, Options]) -> dict[str, str]:
    """Returns the torch entry of each variable of a network.

    For example "params/heads_gap/out/kernel" → "fc_out.2.weight".

    Args:
        leaves: names of the variables.
        heads: property → options, in order.

    Raises:
        UserError: the PyTorch ALIGNN has no such network.
    """
    kind = _kind_of(heads)
    numbers = {f"heads_{name}": number for number, name in enumerate(heads)}
    names = {}
    for leaf in leaves:
        _, part, *path, last = leaf.split("/")
        module = "/".join(path)
        torch = (
            _head_module(kind, module, numbers[part]) if part in numbers else _trunk_module(module)
        )
        names[leaf] = f"{torch}.{_LEAVES[last]}" if torch else ""
    if unknown := [leaf for leaf, name in names.items() if not name]:
        raise UserError(f"The PyTorch ALIGNN has no counterpart of:\n{listed(unknown)}")
    return names


def _kind_of(heads: Mapping[str, Options]) -> str:
    """Returns the kind of a network's heads.

    Raises:
        UserError: the PyTorch ALIGNN has no network with such heads.
    """
    kinds = sorted({options["kind"] for options in heads.values()})
    if kinds != ["mlp"] and (len(heads) > 1 or kinds[0] not in _HEADS):
        raise UserError(
            f"The PyTorch ALIGNN has no network with {counted(len(heads), 'head')} of kind "
            f"{' and '.join(kinds)}, only several of kind mlp or one of {', '.join(_HEADS)}."
        )
    made = {name: make_head(options) for name, options in heads.items()}
    sizes = {
        name: (head.hidden_layers, head.width)
        for name, head in made.items()
        if isinstance(head, MLPHead)
    }
    if len(set(sizes.values())) > 1 or any(layers < 1 for layers, _ in sizes.values()):
        there = [f"{n}: hidden_layers={layers}, width={w}" for n, (layers, w) in sizes.items()]
        raise UserError(
            "The PyTorch ALIGNN has no such network: its heads of kind mlp are all of one size, "
            f"with a hidden layer at least.\n{listed(there)}"
        )
    return kinds[0]


def _head_module(kind: str, module: str, number: int) -> str:
    if kind != "mlp":
        return _HEADS[kind][module]
    if module == "out":
        return f"fc_out.{number}"
    layer = int(module.removeprefix("hidden_"))
    return f"fc_hp.{number}.{layer - 1}" if layer else f"conv_to_fc.{number}"


def _trunk_module(module: str) -> str | None:
    for pattern, replacement in _TRUNK.items():
        if match := re.fullmatch(pattern, module):
            return match.expand(replacement)
    return None


def _buffers(names: Iterable[str], bond_bins: int, angle_bins: int) -> dict[str, np.ndarray]:
    """Returns what a state dict holds beside weights: centers, and for each norm a count."""
    stem = "running_mean"
    tracked = [name.removesuffix(stem) + _TRACKED for name in names if name.endswith(stem)]
    return {
        "edge_embedding.0.centers": radial_centers(0.0, 8.0, bond_bins),
        "angle_embedding.0.centers": radial_centers(-1.0, 1.0, angle_bins),
        **{name: np.array(0, np.int64) for name in tracked},
    }


def _describe(
    arrays: Arrays, properties: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns the options of trunk and heads that the names and shapes of entries tell."""
    _refuse_prefixed(arrays)
    _refuse_other_precision(arrays)
    if "atom_embedding.layer.1.weight" in arrays and not any("running_" in x for x in arrays):
        raise UserError(
            "This network has layer norms: it is one of the alignn package's later kinds, such as "
            "alignn_atomwise or ealignn, which jaxmat does not have. Only the kind named alignn, "
            "with batch norms, can be converted."
        )
    width, embedding_width = _matrix(arrays, _WIDTHS)
    trunk = {
        "kind": "alignn",
        "width": width,
        "embedding_width": embedding_width,
        "alignn_layers": _count(arrays, r"alignn_layers\.(\d+)\..*"),
        "gcn_layers": _count(arrays, r"gcn_layers\.(\d+)\..*"),
        "bond_bins": _matrix(arrays, "edge_embedding.1.layer.0.weight")[1],
        "angle_bins": _matrix(arrays, "angle_embedding.1.layer.0.weight")[1],
    }
    heads: dict[str, Any] = {"kind": "linear"}
    if several := _count(arrays, r"conv_to_fc\.(\d+)\..*"):
        hidden = 1 + _count(arrays, r"fc_hp\.0\.(\d+)\..*")
        width = _matrix(arrays, "conv_to_fc.0.weight")[0]
        heads = {"kind": "mlp", "hidden_layers": hidden, "width": width}
    elif "fc.0.weight" in arrays:
        heads = {"kind": "linear_pair", "width": _matrix(arrays, "fc.0.weight")[0]}
    number = max(1, several)
    if len(set(properties)) != number or len(properties) != number:
        raise UserError(
            f"The network has {counted(number, 'head')}, but the properties named are "
            f"{', '.join(properties) or 'none'}; give each head a name of its own, in their order."
        )
    return trunk, {name: dict(heads) for name in properties}


def _refuse_prefixed(arrays: Arrays) -> None:
    """Refuses a state dict whose entries are those of a network within another module.

    Raises:
        UserError: so it is.
    """
    within = next((name for name in arrays if name.endswith(f".{_WIDTHS}")), None)
    if within is not None and _WIDTHS not in arrays:
        prefix = within.removesuffix(_WIDTHS)
        raise UserError(
            f'The names of its entries begin with "{prefix}", as where DataParallel or another '
            "module has the network in it: save the state dict of the network alone, or take this "
            "beginning off the names."
        )


def _refuse_other_precision(arrays: Arrays) -> None:
    """Refuses a state dict of a network that was saved in double or half precision.

    Raises:
        UserError: so it is.
    """
    found = {array.dtype.name for array in arrays.values() if array.dtype.kind == "f"}
    if found and "float32" not in found:
        raise UserError(
            f"Its weights are {' and '.join(sorted(found))}, those of ALIGNN float32: save "
            "model.float().state_dict()."
        )


def _matrix(arrays: Arrays, name: str) -> tuple[int, int]:
    """Returns the shape of an entry that tells widths."""
    shape = arrays[name].shape if name in arrays else ()
    if len(shape) != 2 or min(shape) < 2:
        _raise([f"{name}: expected a matrix, found {_form(arrays.get(name))}"])
    return shape


def _count(arrays: Arrays, pattern: str) -> int:
    """Returns how many different numbers there are in the names that match."""
    return len({match[1] for name in arrays if (match := re.fullmatch(pattern, name))})


def _form(array: np.ndarray | None) -> str:
    return _NOTHING if array is None else f"{array.dtype}{list(array.shape)}"


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise UserError("Not an ALIGNN state dict that jaxmat knows:\n" + listed(problems))
