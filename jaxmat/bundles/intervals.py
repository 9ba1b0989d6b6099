"""Intervals about predictions: a width for each crystal, as a pure function of arrays.

The half width is a calibrated factor times a spread: how uncertain a Gaussian process is about the
crystal, times how wrong it was about labels nearby. Of a Gaussian process that predicts, that is
its own; of a network that of a process on the descriptors of its training crystals, which grows
with the distance from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from pymatgen.core import Element

from jaxmat.batch import CrystalBatch
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.data.targets import TargetTransform
from jaxmat.models.gaussian_process import array_shapes, expected_error
from jaxmat.models.heads import is_fitted
from jaxmat.models.network import CrystalNetwork
from jaxmat.training.gaussian_process import MOST_LABELS
from jaxmat.values import Allowed, real, text, whole

LEVEL = 0.9  # probability of the intervals that models give
# What a bundle keeps of them for each property.
ONE_WIDTH = {"level": real(above=0, below=1), "half_width": real(0)}
EACH_ITS_WIDTH = {
    **ONE_WIDTH,
    "factor": real(0),
    "method": text(),
    "process_labels": whole(0, MOST_LABELS),
}
# And, where errors were measured for elements left out of training, of each property: by how much
# wider intervals are for crystals with elements that no training crystal held, on how many crystals
# this was measured, and their MAE in the unit by element.
LEFT_OUT = "left_out_elements"
LEFT_OUT_VALUES = {
    "widening": real(1),
    "crystals": whole(1),
    "mae_by_element": Allowed("an object of numbers by element", lambda v: _is_by_element(v)),
}
INTERVALS = "intervals"  # of a bundle's variables: property → arrays of the process


def make_forecast_step(
    network: CrystalNetwork, descriptors: bool = False
) -> Callable[[dict[str, Any], CrystalBatch], jax.Array]:
    """Builds the function from (variables, batch) to scaled predictions and spreads.

    Args:
        network: the network.
        descriptors: whether the descriptors of the crystals come last.

    Returns:
        The function, not compiled; its result is [crystals, 2 · properties], padding included: the
        predictions, then the spreads, 1 where nothing tells crystals apart.
    """

    def forecast(variables: dict[str, Any], batch: CrystalBatch) -> jax.Array:
        own = {name: tree for name, tree in variables.items() if name != INTERVALS}
        pooled = cast(jax.Array, network.apply(own, batch, method="embed"))
        prediction = cast(jax.Array, network.apply(own, pooled, batch, method="read"))
        spreads = []
        for i, (name, options) in enumerate(network.head_options.items()):
            if is_fitted(options):
                inputs = network.apply(own, name, pooled, batch, method="head_inputs")
                found = expected_error(own["params"][f"heads_{name}"], inputs)
            elif name in variables.get(INTERVALS, {}):
                inputs = batch.crystals.globals["descriptors"]
                found = expected_error(variables[INTERVALS][name], inputs)
            else:
                found = jnp.ones_like(prediction[:, i])
            spreads.append(found[:, None])
        last = [batch.crystals.globals["descriptors"]] if descriptors else []
        return jnp.concatenate([prediction, *spreads, *last], axis=-1)

    return forecast


def _is_by_element(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(s in Element.__members__ and real(0).holds(mae) for s, mae in value.items())
    )


def half_widths(calibration: Mapping[str, Any], spread: np.ndarray) -> np.ndarray:
    """Returns half the widths of the intervals about scaled predictions.

    Args:
        calibration: of a property, see `jaxmat.bundles.about.make_about`; {} where there is none.
        spread: of the crystals, as from `make_forecast_step`.

    Returns:
        Of the shape of `spread`; NaN where the model is not calibrated for `LEVEL`.
    """
    if calibration.get("level") != LEVEL:
        return np.full_like(spread, np.nan)
    if "factor" in calibration:
        return np.asarray(calibration["factor"] * spread)
    return np.full_like(spread, calibration["half_width"])


def error_ratios(
    transform: TargetTransform,
    target: np.ndarray,
    prediction: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Returns absolute errors over half the widths of intervals, all of scaled values, [crystals].

    NaN where an interval has no width, as those about equal labels.

    Args:
        transform: of the property.
        target: labels in the unit, [crystals].
        prediction: in the unit, [crystals].
        low: lower ends of the intervals, [crystals].
        high: upper ends, [crystals].
    """
    label, middle, least, most = map(transform.to_scaled, (target, prediction, low, high))
    error, half = np.abs(label - middle), np.asarray((most - least) / 2)
    return np.divide(error, half, out=np.full_like(half, np.nan), where=half > 0)


def widening(about: Mapping[str, Any], name: str, new: np.ndarray) -> np.ndarray:
    """Returns what half the widths of intervals are multiplied by, [crystals].

    Args:
        about: what a bundle tells, see `jaxmat.bundles.about.make_about`.
        name: of the property.
        new: which crystals hold elements that no training crystal held, bool [crystals].
    """
    return np.where(new, about[LEFT_OUT].get(name, {}).get("widening", 1.0), 1.0)


def interval_shapes(calibration: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the arrays that a bundle with this calibration has."""
    return {
        f"{INTERVALS}/{name}/{array}": shape
        for name, one in calibration.items()
        if one.get("process_labels")
        for array, shape in array_shapes(one["process_labels"], COLUMNS).items()
    }
