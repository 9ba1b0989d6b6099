"""Crystals that hold elements which no training crystal of a model held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Element

from jaxmat.bundles.intervals import LEFT_OUT, half_widths, widening
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.findings import some
from jaxmat.data.store import elements_of
from jaxmat.data.targets import TargetTransform
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import regression_metrics


def find_unseen(
    graphs: Sequence[CrystalGraph], seen: Collection[str]
) -> tuple[np.ndarray, list[str]]:
    """Finds crystals with elements that are new.

    Args:
        graphs: of the crystals.
        seen: symbols of the elements that are not new.

    Returns:
        Which crystals they are, bool [crystals], and the new symbols, sorted.
    """
    new = elements_of(graphs)
    new[:, [Element(symbol).Z for symbol in seen]] = False
    numbers = np.flatnonzero(np.any(new, axis=0)).tolist()
    return np.asarray(np.any(new, axis=1)), sorted(Element.from_Z(z).symbol for z in numbers)


def interval_widths(
    about: Mapping[str, Any], name: str, spread: np.ndarray, graphs: Sequence[CrystalGraph]
) -> np.ndarray:
    """Returns half the widths of the intervals about scaled predictions, [crystals].

    Args:
        about: what the bundle of the model tells.
        name: of the property.
        spread: of the crystals, see `jaxmat.bundles.intervals`, [crystals].
        graphs: of the crystals.
    """
    widths = half_widths(about["calibration"].get(name, {}), spread)
    if name not in about[LEFT_OUT]:
        return widths
    new, _ = find_unseen(graphs, about["elements"] or [])
    return widths * widening(about, name, new)


def describe_unseen(
    graphs: Sequence[CrystalGraph], seen: Collection[str] | None, source: str
) -> str:
    """Returns what is said of training crystals whose elements a model has never seen, "" for none.

    Args:
        graphs: of the training crystals.
        seen: symbols of the elements that the model to start from has seen; None: not known.
        source: where it is.
    """
    if seen is None:
        return f"which elements {source} was trained on is not known"
    new, symbols = find_unseen(graphs, seen)
    if not symbols:
        return ""
    return (
        f"{new.sum()} of {len(new)} training crystals hold elements that {source} has never seen "
        f"({some(symbols, most=10)}): what it has learned of the others is no help with them"
    )


def measure_unseen(
    graphs: Sequence[CrystalGraph],
    seen: Collection[str] | None,
    transform: TargetTransform,
    labels: np.ndarray,
    prediction: np.ndarray,
) -> tuple[dict[str, Any], str]:
    """Returns how good predictions are with and without crystals of new elements, and in words.

    Args:
        graphs: of the test crystals.
        seen: symbols of the elements of all training crystals; None: not known.
        transform: of the property.
        labels: in the unit, NaN where missing, [crystals].
        prediction: in the unit, [crystals].

    Returns:
        {"elements": symbols, "crystals": number, "test_mae": of these crystals,
        "test_mae_without": of the others}, of crystals with labels, and a remark; {} and "" where
        there are none.
    """
    if seen is None:
        return {}, ""
    known = np.isfinite(labels)
    labelled = [graph for graph, is_known in zip(graphs, known, strict=True) if is_known]
    new, symbols = find_unseen(labelled, seen)
    if not symbols:
        return {}, ""
    measured = {
        "elements": symbols,
        "crystals": int(new.sum()),
        **with_and_without(labels[known], prediction[known], new),
    }
    remark = (
        f"{new.sum()} of {len(new)} test crystals hold elements that no training crystal held "
        f"({some(symbols, most=10)}): {describe_maes(measured, transform)}"
    )
    return measured, remark


def with_and_without(
    labels: np.ndarray, prediction: np.ndarray, which: np.ndarray
) -> dict[str, float]:
    """Returns "test_mae" of some crystals and "test_mae_without" of the others; NaN where none.

    Args:
        labels: in the unit, [crystals].
        prediction: in the unit, [crystals].
        which: the crystals are, bool [crystals].
    """
    maes = [regression_metrics(labels[one], prediction[one])["mae"] for one in (which, ~which)]
    return {"test_mae": maes[0], "test_mae_without": maes[1]}


def describe_maes(measured: Mapping[str, Any], transform: TargetTransform) -> str:
    """Returns what `with_and_without` measured, in words."""
    mae, other = (measured[name] for name in ("test_mae", "test_mae_without"))
    rest = f", on the others {format_quantity(other, transform.unit)}" if other == other else ""
    return f"the MAE of {transform.name} on them is {format_quantity(mae, transform.unit)}{rest}"
