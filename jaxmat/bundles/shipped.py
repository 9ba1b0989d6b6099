"""The models that come with the package, by short names."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from jaxmat.errors import UserError
from jaxmat.values import shortened

# What fine-tuning and choosing start from where nothing else is named.
DEFAULT = "all_six"
# Named in place of a model, where none is to be started from.
NONE = "none"


def shipped_names() -> list[str]:
    """Returns the names of the models that come with the package."""
    return sorted(place.parent.name for place in _folder().glob("*/model.safetensors"))


def find_model(place: str | os.PathLike[str]) -> Path:
    """Returns where a model is; a path that is there goes before a name.

    Args:
        place: a path, or the name of a model that comes with the package.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(place, (str, os.PathLike)):
        raise UserError(
            f"{shortened(place)} is no model: give the path of one bundle, run or checkpoint, or "
            f"the name of a model that comes with the package ({', '.join(shipped_names())})."
        )
    path = Path(place)
    if not path.exists() and str(place) in shipped_names():
        return _folder() / str(place)
    return path


def _folder() -> Path:
    return Path(str(resources.files("jaxmat"))) / "models_shipped"
