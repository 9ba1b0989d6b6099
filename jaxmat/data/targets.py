"""From a property in its unit to the scaled target of the network, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from jaxmat.data.splits import Split
from jaxmat.errors import UserError

# Standard deviations between the means of old and new labels.
_SUSPICIOUS_SHIFT = 10.0


@dataclass(frozen=True)
class TargetTransform:
    """A property and its scaling: scaled = (y - offset) / scale, with ln(y) for y if `log`.

    Attributes:
        name: the property.
        unit: its unit, "1" if it has none.
        log: whether the logarithm is taken first.
        offset: in `unit`, or the natural logarithm of it.
        scale: as `offset`; positive.
    """

    name: str
    unit: str
    log: bool
    offset: float
    scale: float

    def __post_init__(self) -> None:
        """Refuses a transform without a unit or without an inverse."""
        if not self.unit.strip():
            raise UserError(f'property {self.name} has no unit; write "1" if it is dimensionless')
        if not (np.isfinite(self.offset) and np.isfinite(self.scale) and self.scale > 0):
            raise UserError(
                f"property {self.name}: offset {self.offset} and scale {self.scale} do not scale; "
                "give labels in a unit in which they are neither huge nor tiny"
            )

    def to_scaled(self, values: np.ndarray) -> np.ndarray:
        """Returns the scaled targets of `values` in `unit`; NaN stays NaN.

        Raises:
            UserError: `log`, and some value is not positive.
        """
        if self.log:
            values = _logarithm(values, self.name)
        return (values - self.offset) / self.scale

    def to_unit(self, scaled: np.ndarray) -> np.ndarray:
        """Returns the values in `unit` of scaled targets or predictions; NaN stays NaN."""
        values = scaled * self.scale + self.offset
        with np.errstate(over="ignore"):  # infinite, which is told where it is used
            return np.exp(values) if self.log else values

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TargetTransform:
        """Makes a transform from `to_dict`.

        Raises:
            UserError: fields are missing, unknown, or of the wrong type.
        """
        types = {"name": str, "unit": str, "log": bool, "offset": float, "scale": float}
        wrong = sorted(
            set(data) ^ set(types)
            | {key for key, kind in types.items() if key in data and type(data[key]) is not kind}
        )
        if wrong:
            raise UserError(
                f"target transform: {', '.join(wrong)} missing, unknown or of the wrong type; "
                f"expected {', '.join(field.name for field in fields(cls))}"
            )
        return cls(**data)


def scaling_labels(values: np.ndarray, split: Split, which: str) -> np.ndarray:
    """Returns the labels that the scaling may see.

    Args:
        values: labels of all rows, [n_row].
        split: the rows of each part.
        which: "training" for the training rows, or "all" for the whole table, test rows
            included, as in the published runs.

    Raises:
        UserError: `which` is something else.
    """
    if which == "training":
        return values[split.train]
    if which == "all":
        return values
    raise UserError(f'labels to scale with: "training" or "all", not {which!r}')


def fit_transform(
    values: np.ndarray, *, name: str, unit: str, scaling: str, log: bool
) -> TargetTransform:
    """Chooses offset and scale so that the given labels are scaled alike for any property.

    Args:
        values: labels in `unit`, [n_row], NaN where missing; see `scaling_labels`.
        name: the property.
        unit: its unit, "1" if it has none.
        scaling: "standard" for mean 0 and standard deviation 1, or "minmax" for the range -1 to
            1, t = 2 (y - min) / (max - min) - 1, as in the published runs. Equal labels are only
            shifted.
        log: whether to take the natural logarithm first.

    Raises:
        UserError: there is no label, `scaling` is unknown, or a logarithm does not exist.
    """
    labels = values[~np.isnan(values)]
    if labels.size == 0:
        raise UserError(f"property {name}: no label to fit the scaling to")
    if log:
        labels = _logarithm(labels, name)
    low, high = float(labels.min()), float(labels.max())
    if scaling == "standard":
        offset, scale = float(labels.mean()), float(labels.std())
    elif scaling == "minmax":
        offset, scale = (low + high) / 2, (high - low) / 2
    else:
        raise UserError(f'property {name}: scaling is "standard" or "minmax", not {scaling!r}')
    if low == high:  # the standard deviation of equal numbers need not be 0 in floating point
        offset, scale = low, 1.0
    return TargetTransform(name=name, unit=unit, log=log, offset=offset, scale=scale)


def unit_mismatch(source: TargetTransform, unit: str) -> str | None:
    """Returns why labels in a unit cannot go on with a property, or None if they can.

    Args:
        source: the property, as a checkpoint predicts it.
        unit: of the new labels.
    """
    if "".join(unit.split()) == "".join(source.unit.split()):
        return None
    return (
        f"config.data.unit is {unit}, but the checkpoint predicts {source.name} in {source.unit}: "
        "convert the labels, or give the property another name (config.data.property) if it is "
        "another quantity"
    )


def magnitude_shift(source: TargetTransform, labels: np.ndarray) -> str | None:
    """Returns a doubt about the unit of new labels of a property, or None.

    Args:
        source: the property, as a checkpoint predicts it.
        labels: in its unit, NaN where missing, [labels].
    """
    labels = labels[~np.isnan(labels)]
    if not labels.size:
        return None
    if source.log and (labels <= 0).any():
        return (
            f"the checkpoint was trained on the logarithm of {source.name}, but "
            f"{np.count_nonzero(labels <= 0)} of {labels.size} labels are zero or negative; is "
            "this the same quantity?"
        )
    shift = abs(float(source.to_scaled(labels).mean()))
    if shift <= _SUSPICIOUS_SHIFT:
        return None
    usual = float(source.to_unit(np.zeros(1))[0])
    return (
        f"the labels of {source.name} have the mean {labels.mean():.4g} {source.unit}, those that "
        f"the checkpoint was trained on {usual:.4g}: {shift:.3g} of their standard deviations "
        "away; is the unit another one?"
    )


def _logarithm(values: np.ndarray, name: str) -> np.ndarray:
    n_bad = int(np.count_nonzero(values <= 0))
    if n_bad:
        raise UserError(
            f"property {name}: no logarithm, {n_bad} of {values.size} labels are zero or negative; "
            "leave data.log off"
        )
    return np.log(values)
