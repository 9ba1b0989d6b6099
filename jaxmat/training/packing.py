"""Variables as a few long vectors, which are cheaper to update and to hand over than many arrays.

A network has some 250 arrays, and its training state 900. An accelerator would need a program of
its own for each in every step, and more time to be handed them than to work on them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.batch import CrystalBatch
from jaxmat.training.state import TrainState
from jaxmat.training.step import Applicable

Vectors = dict[str, Any]


class Packing:
    """Joins the leaves of a tree to one vector for each kind of leaf, and takes them apart again.

    Either side may have leading axes, the same for all leaves. A kind without values, such as the
    moments of frozen parameters, is one placeholder instead of a vector.

    Attributes:
        kinds: name of each vector to the kind of its leaves.
    """

    def __init__(self, tree: Mapping[str, Any], kind: Callable[[str], Hashable]) -> None:
        """Plans the vectors.

        Args:
            tree: nested dicts of arrays, or of what has a shape.
            kind: from the name of a leaf, such as "trunk/fc/bias", to its kind.
        """
        self._shapes = {
            name: tuple(leaf.shape) for name, leaf in flatten_dict(tree, sep="/").items()
        }
        # Large ones first, so that none of them begins at an odd place behind a small one.
        names = sorted(self._shapes, key=lambda name: (-_size(self._shapes[name]), name))
        members: dict[Hashable, list[str]] = {}
        for name in names:
            members.setdefault(kind(name), []).append(name)
        self.kinds: dict[str, Any] = {str(number): kind for number, kind in enumerate(members)}
        self._members = dict(zip(self.kinds, members.values(), strict=True))
        self._roots = {name.partition("/")[0] for name in names}

    def pack(self, tree: Mapping[str, Any]) -> Vectors:
        """Returns the vectors of a tree, those alone of which it has all leaves."""
        leaves = flatten_dict(tree, sep="/")
        return {
            vector: self._join({name: leaves[name] for name in names})
            for vector, names in self._members.items()
            if leaves.keys() >= set(names)
        }

    def unpack(self, vectors: Vectors) -> dict[str, Any]:
        """Returns the tree of vectors."""
        leaves: dict[str, Any] = {}
        for vector, names in self._members.items():
            leaves |= self._take_apart(vectors[vector], names)
        return unflatten_dict({name: leaves[name] for name in self._shapes}, sep="/")

    def is_packed(self, node: Any) -> bool:
        """Whether part of a tree is what `pack` returns."""
        return isinstance(node, dict) and node.keys() == self.kinds.keys()

    def is_unpacked(self, node: Any) -> bool:
        """Whether part of a tree is like the tree of which the vectors were planned."""
        return isinstance(node, dict) and node.keys() == self._roots

    def _join(self, leaves: Mapping[str, Any]) -> Any:
        first = next(iter(leaves.values()))
        if not hasattr(first, "shape"):
            return first
        flat = [
            leaf.reshape(*leaf.shape[: leaf.ndim - len(self._shapes[name])], -1)
            for name, leaf in leaves.items()
        ]
        module: Any = np if all(isinstance(leaf, np.ndarray) for leaf in flat) else jnp
        return module.concatenate(flat, axis=-1)

    def _take_apart(self, vector: Any, names: list[str]) -> dict[str, Any]:
        if not hasattr(vector, "shape"):
            return dict.fromkeys(names, vector)
        ends = np.cumsum([_size(self._shapes[name]) for name in names])[:-1]
        # The gradient of jnp.split is one concatenation; that of slices would be a sum of them.
        module: Any = np if isinstance(vector, np.ndarray) else jnp
        parts = module.split(vector, ends, axis=-1)
        return {
            name: part.reshape(*part.shape[:-1], *self._shapes[name])
            for name, part in zip(names, parts, strict=True)
        }


class StatePacking:
    """The packing of a training state: parameters by kind, batch statistics together.

    Attributes:
        params: packing of the parameters, of their averages and of what an optimizer keeps of them.
        batch_stats: packing of the batch statistics and of their averages.
    """

    def __init__(self, variables: Mapping[str, Any], kind: Callable[[str], Hashable]) -> None:
        """Plans the vectors.

        Args:
            variables: {"params", "batch_stats"}, of which names and shapes matter.
            kind: see `Packing`, of a parameter.
        """
        self.params = Packing(variables["params"], kind)
        self.batch_stats = Packing(variables.get("batch_stats", {}), lambda name: None)

    def pack(self, state: TrainState) -> TrainState:
        """Returns a state of trees as one of vectors."""
        return self._convert(state, Packing.pack, self.params.is_unpacked)

    def unpack(self, state: TrainState) -> TrainState:
        """Returns a state of vectors as one of trees."""
        return self._convert(state, Packing.unpack, self.params.is_packed)

    def _convert(
        self,
        state: TrainState,
        convert: Callable[[Packing, Any], Any],
        holds_params: Callable[[Any], bool],
    ) -> TrainState:
        """Returns a state with all that is like parameters or batch statistics converted.

        Args:
            state: of vectors or of trees.
            convert: one of them to the other.
            holds_params: whether part of the optimizer's state is like the parameters.
        """
        return state._replace(
            **self._convert_variables(state._asdict(), convert),
            opt_state=jax.tree.map(
                lambda node: convert(self.params, node) if holds_params(node) else node,
                state.opt_state,
                is_leaf=holds_params,
            ),
            ema=None if state.ema is None else self._convert_variables(state.ema, convert),
        )

    def pack_variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Returns {"params", "batch_stats"} as vectors."""
        return self._convert_variables(variables, Packing.pack)

    def unpack_variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Returns {"params", "batch_stats"} as trees."""
        return self._convert_variables(variables, Packing.unpack)

    def _convert_variables(
        self, variables: Mapping[str, Any], convert: Callable[[Packing, Any], Any]
    ) -> dict[str, Any]:
        return {
            "params": convert(self.params, variables["params"]),
            "batch_stats": convert(self.batch_stats, variables.get("batch_stats", {})),
        }

    def network(self, network: Applicable) -> PackedNetwork:
        """Returns a network that takes and gives vectors."""
        return PackedNetwork(network, self)


class PackedNetwork:
    """A network whose variables are vectors."""

    def __init__(self, network: Applicable, packing: StatePacking) -> None:
        """Use `StatePacking.network`."""
        self._network, self._packing = network, packing

    def apply(
        self, variables: Any, batch: CrystalBatch, *, train: bool, mutable: list[str]
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns predictions and the updated batch statistics."""
        prediction, updated = self._network.apply(
            self._packing.unpack_variables(variables), batch, train=train, mutable=mutable
        )
        return prediction, {
            name: self._packing.batch_stats.pack(statistics) for name, statistics in updated.items()
        }


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
