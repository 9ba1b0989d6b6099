"""Weighted means of models: a folder that has the models, and a file that names them.

<folder>/ensemble.json   {"members": [folders], "weights": [numbers that sum to 1],
                          "metrics": {}, "widening": number}
<folder>/<member>        a run or a bundle
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmat.bundles.bundle import ENSEMBLE, Bundle, save_bundle
from jaxmat.errors import UserError
from jaxmat.runtime.files import read_json, reason, refuse_addresses, write_json
from jaxmat.values import real

# Where a loaded member keeps its share, and the widening of the mean.
_WEIGHT, _WIDENING = "weight", "widening_of_mean"


class Mean(NamedTuple):
    """What makes a weighted mean.

    Attributes:
        members: names of the folders of the models.
        weights: of their predictions, summing to 1.
        metrics: of the test of the mean, {} where it is not known.
        widening: what half the widths of its intervals are multiplied by: a mean errs less than its
            models, by how much was seen in cross-validation; 1 in means made before.
    """

    members: Sequence[str]
    weights: Sequence[float]
    metrics: Mapping[str, Any]
    widening: float = 1.0


def read_mean(folder: Path) -> Mean | None:
    """Returns what makes the weighted mean in a folder, None where there is none.

    Raises:
        UserError: what names its models is not as it was written.
    """
    file = folder / ENSEMBLE
    if not file.exists():
        return None
    content = read_json(file)
    names, weights = content.get("members"), content.get("weights")
    metrics, widening = content.get("metrics", {}), content.get("widening", 1.0)
    if (
        not isinstance(names, list)
        or not isinstance(weights, list)
        or not isinstance(metrics, dict)
        or len(names) != len(weights)
        or not all(isinstance(name, str) and _is_inside(name) for name in names)
        or not all(real(above=0, most=1).holds(weight) for weight in weights)
        or abs(sum(weights) - 1) > 1e-6
        or not real(0).holds(widening)
    ):
        raise UserError(
            f'{file} is not {{"members": [folders], "weights": [numbers that sum to 1], "metrics": '
            '{}, "widening": number from 0}. Bring it back from a copy.'
        )
    return Mean(names, [float(weight) for weight in weights], metrics, float(widening))


def _is_inside(name: str) -> bool:
    """Whether a name is one of a file in a folder, and no way out of it."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name


def write_mean(folder: Path, mean: Mean) -> None:
    """Writes what makes a weighted mean of the models in a folder."""
    write_json(folder / ENSEMBLE, mean._asdict())


def save_mean(folder: Path, members: Sequence[Bundle], metrics: Mapping[str, Any]) -> None:
    """Writes a weighted mean with its models.

    Args:
        folder: a new or an empty one.
        members: the models, with their weights.
        metrics: of the test of the mean.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    refuse_addresses({"where to save the model": folder})
    names = [f"member_{i}" for i in range(len(members))]
    weights = [weight_of(member) for member in members]
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        for name, member in zip(names, members, strict=True):
            own = member.about.items()
            about = {key: value for key, value in own if key not in (_WEIGHT, _WIDENING)}
            save_bundle(folder / name, member._replace(about=about))
        write_mean(folder, Mean(names, weights, metrics, widening_of(members[0])))
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {reason(error)}") from error


def as_member(bundle: Bundle, weight: float, widening: float) -> Bundle:
    """Returns a model as a member of a weighted mean with a widening."""
    return bundle._replace(about=bundle.about | {_WEIGHT: weight, _WIDENING: widening})


def weight_of(member: Bundle) -> float:
    """Returns the weight of a model in the mean that it is in, 1 where it is in none."""
    return float(member.about.get(_WEIGHT, 1.0))


def widening_of(member: Bundle) -> float:
    """Returns the widening of the mean that a model is in, 1 where it is in none."""
    return float(member.about.get(_WIDENING, 1.0))
