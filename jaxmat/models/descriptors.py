"""The trunk without parameters: a crystal's vector is its descriptors."""

from __future__ import annotations

import jax

from jaxmat.batch import CrystalBatch
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.models.trunk import Groups, Trunk


class Descriptors(Trunk):
    """The trunk: a batch of crystals to their descriptors, see `jaxmat.crystals.descriptors`.

    Attributes:
        width: number of descriptors; there is no other.
        element_features: see Trunk; descriptors hold properties of the elements.
    """

    width: int = COLUMNS
    element_features: str = "properties"

    def groups(self) -> Groups:
        """Returns no names: there are no parameters."""
        return Groups()

    def __call__(self, batch: CrystalBatch, train: bool) -> jax.Array:
        """Returns descriptors, [crystals, width], zero for padding."""
        return batch.crystals.globals["descriptors"]
