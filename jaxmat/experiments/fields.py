"""The fields of a config by their full names, as in "training.epochs"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments.ranges import allowed
from jaxmat.values import shortened


def fields(config: ConfigDict) -> dict[str, object]:
    """Returns all fields of a config; parts without fields, too."""
    return dict(flatten_dict(config.to_dict(), keep_empty_nodes=True, sep="."))


def refuse_unknown(config: ConfigDict, names: Iterable[str], hint: str = "") -> None:
    """Checks that a config has some fields or parts.

    Args:
        config: the config.
        names: of the fields.
        hint: what the message ends with.

    Raises:
        UserError: it lacks some; the message has the nearest of those it has.
    """
    known = fields(config)
    parts = {name[:i] for name in known for i, letter in enumerate(name) if letter == "."}
    if wrong := [name for name in names if name not in known and name not in parts]:
        lines = [f"config.{name}: there is no such field{nearest(name, known)}" for name in wrong]
        raise UserError("\n".join(lines) + hint)


def set_fields(config: ConfigDict, values: Mapping[str, object]) -> None:
    """Sets fields of a config.

    Args:
        config: the config.
        values: by the names of the fields.

    Raises:
        UserError: there is no such field, or a value is of another type.
    """
    refuse_unknown(config, values)
    known = fields(config)
    for name, value in values.items():
        if name not in known:
            inside = next(one for one in known if one.startswith(f"{name}."))
            raise UserError(
                f"config.{name} is a part of the config: give its fields by their full names, "
                f"such as {inside!r}."
            )
        try:
            plain = value.item() if isinstance(value, np.generic) else value
            config.update_from_flattened_dict({name: plain})
        except (TypeError, ValueError) as error:
            may_be = allowed(name)
            needed = may_be.text if may_be else "a value of another type"
            raise UserError(
                f"config.{name} is {shortened(value)}; it has to be {needed}"
            ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message: the question whether the nearest known name was meant."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    if not near:  # perhaps the name of the part was left out, or another one given
        last = {one.rpartition(".")[2]: one for one in reversed(known)}
        near = [last[one] for one in difflib.get_close_matches(name.rpartition(".")[2], last, 1)]
    return f"; did you mean {near[0]}?" if near else "."
