"""Crystals that hold elements which no training crystal of a model held."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Element

from jaxmat.bundles.intervals import LEFT_OUT, half_widths, widening
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.findings import some
from jaxmat.data.store import elements_of
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import regression_metrics

_logger = logging.getLogger(__name__)


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


def tell_unseen(graphs: Sequence[CrystalGraph], seen: Collection[str] | None, source: str) -> None:
    """Warns of training crystals whose elements the model to start from has never seen.

    Args:
        graphs: of the training crystals.
        seen: symbols of the elements that it has seen; None: not known.
        source: where it is.
    """
    if seen is None:
        _logger.warning("Which elements %s was trained on is not known.", source)
        return
    new, symbols = find_unseen(graphs, seen)
    if symbols:
        _logger.warning(
            "%d of %d training crystals hold elements that %s has never seen (%s): what it has "
            "learned of the others is no help with them.",
            *(int(new.sum()), len(new), source, some(symbols, most=10)),
        )


def measure_unseen(
    graphs: Sequence[CrystalGraph],
    seen: Collection[str] | None,
    labels: np.ndarray,
    prediction: np.ndarray,
    unit: str,
) -> dict[str, Any]:
    """Returns, and says, how good predictions are with and without crystals of new elements.

    Args:
        graphs: of the test crystals.
        seen: symbols of the elements of all training crystals; None: not known.
        labels: in `unit`, NaN where missing, [crystals].
        prediction: in `unit`, [crystals].
        unit: of the property.

    Returns:
        {"elements": symbols, "crystals": number, "test_mae": of these crystals,
        "test_mae_without": of the others}, or {} where there are none.
    """
    if seen is None:
        return {}
    new, symbols = find_unseen(graphs, seen)
    if not symbols:
        return {}
    maes = [regression_metrics(labels[which], prediction[which])["mae"] for which in (new, ~new)]
    mae, other = (format_quantity(mae, unit) for mae in maes)
    _logger.warning(
        "%d of %d test crystals hold elements that no training crystal held (%s): their MAE is "
        "%s%s.",
        *(int(new.sum()), len(new), some(symbols, most=10), mae),
        "" if new.all() else f", that of the others {other}",
    )
    return {
        "elements": symbols,
        "crystals": int(new.sum()),
        "test_mae": maes[0],
        "test_mae_without": maes[1],
    }
