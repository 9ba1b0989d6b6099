"""What a network knows of the elements before it learns anything: a choice of every trunk."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmat.crystals.elements import LAST_ATOMIC_NUMBER, atom_features, standard_properties
from jaxmat.errors import UserError

PARTS = ("table", "properties", "embedding")


class ElementFeatures(nn.Module):
    """The features of elements, the columns of all parts side by side.

    Attributes:
        parts: joined by "+": "table" for the 92 columns of zeros and ones of the published ALIGNN
            (`atom_features`), "properties" for continuous properties of the elements
            (`standard_properties`), "embedding" for learned numbers of each element.
        width: learned numbers of an element.
    """

    parts: str
    width: int

    @nn.compact
    def __call__(self, atomic_number: jax.Array) -> jax.Array:
        """Maps [sites] to [sites, features]."""
        columns: list[jax.Array] = []
        for part in check_parts(self.parts):
            if part == "table":
                table = jnp.asarray(atom_features())
            elif part == "properties":
                table = jnp.asarray(standard_properties())
            else:
                shape = (LAST_ATOMIC_NUMBER + 1, self.width)
                table = self.param("embedding", nn.initializers.normal(1.0), shape)
            columns.append(table[atomic_number])
        return jnp.concatenate(columns, axis=-1)


def check_parts(parts: str) -> list[str]:
    """Returns the parts that the option `element_features` of a trunk names.

    Raises:
        UserError: a part is unknown, there twice, or there is none.
    """
    names = parts.split("+")
    if set(names) - set(PARTS) or len(set(names)) < len(names):
        raise UserError(
            f"element_features is {parts!r}; give one or several of {', '.join(PARTS)}, joined by "
            "'+', each once."
        )
    return names


def knows_elements_apart(parts: str) -> bool:
    """Whether a network with these features has numbers for each element that others lack.

    One that sees elements by their properties alone can be asked about elements it has not met.
    """
    return check_parts(parts) != ["properties"]
