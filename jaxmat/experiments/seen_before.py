"""What a model to start from has seen of the data: test crystals, and the property itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.model import Predictor
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.data.seen import Seen, recognise
from jaxmat.experiments.prepare import Prepared, SeenBefore
from jaxmat.experiments.unseen import describe_unseen, with_and_without
from jaxmat.experiments.workdir import add_findings
from jaxmat.report.tables import format_quantity

# A head that errs less than this share of what the median errs has learned the property, or one
# that hardly differs.
_SAME = 0.5


def find_seen(seen: Seen | None, graphs: Sequence[CrystalGraph]) -> SeenBefore | None:
    """Finds the test crystals that a model has seen.

    Args:
        seen: what it has seen; None: not known.
        graphs: of the test crystals.

    Returns:
        Which they are; None where that is not known.
    """
    if seen is None:
        return None
    which, labels = recognise(seen, graphs)
    counts = dict(zip(seen.properties, labels.sum(axis=0).tolist(), strict=True))
    return SeenBefore(which, {name: count for name, count in counts.items() if count})


def find_seen_by_any(
    seen: Sequence[Seen | None], graphs: Sequence[CrystalGraph]
) -> SeenBefore | None:
    """Returns which crystals one of the models or another has seen, None where none knows."""
    found = [each for one in seen if (each := find_seen(one, graphs)) is not None]
    if not found:
        return None
    counts: dict[str, int] = {}
    for each in found:
        for name, count in each.labels.items():
            counts[name] = max(count, counts.get(name, 0))
    return SeenBefore(np.any([each.which for each in found], axis=0), counts)


def describe_seen(found: SeenBefore | None, source: str, what: str = "test crystals") -> str:
    """Returns what is said of crystals that a model has seen, "" for none.

    Args:
        found: from `find_seen`.
        source: the model.
        what: the crystals are, in words.
    """
    if found is None:
        return (
            f"which crystals {source} was trained on is not known: whether {what} are among them "
            "cannot be said"
        )
    if not found.which.any():
        return ""
    labels = ", ".join(f"{name} of {count}" for name, count in found.labels.items())
    return (
        f"{found.which.sum()} of {len(found.which)} {what} are among those that {source} was "
        f"trained or validated on, or equal one (it has seen {labels}): errors on them may be "
        "lower than on new crystals"
    )


def measure_seen(
    found: SeenBefore | None, labels: np.ndarray, prediction: np.ndarray
) -> dict[str, Any]:
    """Returns how good predictions are with and without the crystals that were seen before.

    Args:
        found: from `find_seen`.
        labels: in the unit, NaN where missing, [crystals].
        prediction: in the unit, [crystals].

    Returns:
        {"crystals": number, "labels": property → number} and, where there are any, "test_mae" of
        these crystals and "test_mae_without" of the others; {} where it is not known.
    """
    if found is None:
        return {}
    maes = with_and_without(labels, prediction, found.which) if found.which.any() else {}
    known = {name: mae for name, mae in maes.items() if np.isfinite(mae)}
    return {"crystals": int(found.which.sum()), "labels": found.labels, **known}


def describe_property(source: Bundle, data: Prepared, place: str) -> str:
    """Returns what is said of a property that a model has been trained on already, "" for nothing.

    It is the one of the same name, or one of the same unit that the model has seen of some of the
    crystals and whose head predicts the labels.

    Args:
        source: the model.
        data: the data sets of one property.
        place: where the model is.
    """
    ((name, transform),) = data.transforms.items()
    if name in source.model.heads:
        return f"{place} has been trained on a property {name} already"
    labels, part = data.labels["train"][:, 0], data.datasets["train"]
    known = find_seen(source.seen, part.graphs)
    alike = [
        other
        for other, scaling in source.model.transforms.items()
        if scaling.unit == transform.unit and (known is None or other in known.labels)
    ]
    if not alike or np.ptp(labels) == 0:
        return ""
    network = source.model.network()
    blank = np.full((len(labels), len(source.model.heads)), np.nan)
    scaled = Predictor(network)(source.variables, part._replace(target=blank))
    constant = float(np.mean(np.abs(labels - np.median(labels))))
    for other in alike:
        column = scaled[:, list(source.model.heads).index(other)]
        errors = np.abs(source.model.transforms[other].to_unit(column) - labels)
        if np.mean(errors) < _SAME * constant:
            mae, median = (format_quantity(e, transform.unit) for e in (np.mean(errors), constant))
            return (
                f"{place} seems to have been trained on {name} already, as {other}: as it is, its "
                f"MAE on the training labels is {mae} (their median: {median})"
            )
    return ""


def tell_start(start: Bundle, data: Prepared, place: str, workdir: Path) -> Prepared:
    """Says what a model to start from has seen; returns the data with the test crystals it has.

    Args:
        start: the model.
        data: the data sets of one property.
        place: where the model is.
        workdir: of the run.
    """
    before = find_seen(start.seen, data.datasets["test"].graphs)
    remarks = [
        describe_unseen(data.datasets["train"].graphs, start.about["elements"], place),
        describe_seen(before, place),
        describe_property(start, data, place),
    ]
    add_findings(workdir, remarks)
    return data._replace(seen_before=before)
