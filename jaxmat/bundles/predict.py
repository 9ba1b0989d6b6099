"""Predictions of properties, by one model or several, with what they are worth.

    from jaxmat.bundles.predict import predict

    for row in predict("DIR", structures):
        print(row.id, row.prediction, row.unit, row.uncertainty)

`jaxmat.load("DIR").predict(structures)` is the same for one model and keeps what is compiled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmat.bundles.bundle import Bundle, load, may_meet_new_elements, place_of
from jaxmat.bundles.inference import Chunk, Function, Inference, Step
from jaxmat.bundles.intervals import LEFT_OUT, LEVEL, half_widths, make_forecast_step, widening
from jaxmat.bundles.means import as_member, read_mean, weight_of, widening_of
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.data.reading import Source, read
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, listed
from jaxmat.report.predictions import Prediction
from jaxmat.runtime.files import to_json
from jaxmat.runtime.stopping import passing_signals_on

# Half of the interval for a normal distribution.
_STANDARD_DEVIATIONS = NormalDist().inv_cdf((1 + LEVEL) / 2)
# Predictions and the ends of the intervals about them.
_Combined = tuple[np.ndarray, np.ndarray, np.ndarray]


class Forecast(NamedTuple):
    """What is predicted of one property of one crystal.

    Attributes:
        id: of the input, see `jaxmat.data.reading.Reading`.
        property: its name.
        prediction: in `unit`; NaN where there is a reason.
        unit: of the property, "1" if it has none.
        uncertainty: half the width of the interval, in `unit`; NaN where it is not known.
        low: lower end of the interval that should hold the true value with probability 0.9, in
            `unit`, see `mean_with_ends`; NaN where it is not known.
        high: its upper end.
        reason: why nothing can be predicted, "" where something is.
        remark: what is to be known about the input, "" for nothing.
    """

    id: str
    property: str
    prediction: float
    unit: str
    uncertainty: float
    low: float
    high: float
    reason: str
    remark: str


def predict(
    models: str | Path | Sequence[str | Path], inputs: Source | Iterable[Source]
) -> list[Forecast]:
    """Predicts every property of a model for every input.

    Args:
        models: a bundle, work directory or checkpoint, or several that predict the same.
        inputs: structures, files, folders or tables, see `jaxmat.data.reading.read`.

    Returns:
        A row for each input and property, in order; one that cannot be predicted has a reason.

    Raises:
        UserError: a model cannot be read, or several do not go together.
    """
    members = load_members([models] if isinstance(models, (str, Path)) else models)
    with passing_signals_on() as stop:
        return list(forecasts(members, stop.between(make_inference(members)(read(inputs)))))


def load_members(paths: Sequence[str | Path]) -> list[Bundle]:
    """Reads models that predict together; a weighted mean of a choice stands for its members.

    Raises:
        UserError: there is none, one cannot be read, or properties, units or graphs differ.
    """
    if not paths:
        raise UserError("Give at least one model.")
    parts = [part for path in paths for part in _parts(path)]
    members = []
    for place, share in parts:
        bundle = load(place)
        members.append(bundle if share is None else as_member(bundle, *share))
    traits = [_traits(member) for member in members]
    if problems := [
        f"{place}: {name} {trait.get(name)}, not {value}"
        for (place, _), trait in zip(parts, traits, strict=True)
        for name, value in traits[0].items()
        if trait.get(name) != value
    ]:
        raise UserError(
            "Models that predict together need the same properties, units and graphs; these "
            f"differ from {parts[0][0]}:\n{listed(problems)}"
        )
    return members


def _parts(path: str | Path) -> list[tuple[Path, tuple[float, float] | None]]:
    """Returns the models in a place, each with its weight in a mean and the mean's widening.

    Raises:
        UserError: what names them is not as it was written.
    """
    path = place_of(path)
    if (mean := read_mean(path)) is None:
        return [(path, None)]
    named = zip(mean.members, mean.weights, strict=True)
    return [(path / name, (weight, mean.widening)) for name, weight in named]


def _traits(member: Bundle) -> dict[str, Any]:
    units = {f"unit of {name}": t.unit for name, t in member.model.transforms.items()}
    return {"properties": sorted(member.model.heads), **units, **member.model.graph.to_dict()}


def make_inference(members: Sequence[Bundle], descriptors: bool = False) -> Inference:
    """Returns what computes the scaled predictions of each model, then their spreads.

    Args:
        members: the models.
        descriptors: whether the descriptors of the crystals come last.
    """
    functions: dict[str, Function] = {}  # seeds of one network share it and its programs
    steps = []
    for member in members:
        kind = json.dumps([member.model.trunk, member.model.heads])
        if kind not in functions:
            functions[kind] = make_forecast_step(member.model.network(), descriptors)
        steps.append(Step(functions[kind], member.variables))
    return Inference(
        steps,
        columns=2 * len(members[0].model.heads) + (COLUMNS if descriptors else 0),
        graph=members[0].model.graph,
        elements=common_elements(members),
        new_elements=all(may_meet_new_elements(member) for member in members),
    )


def common_elements(members: Sequence[Bundle]) -> list[str] | None:
    """Returns the elements that all models have met, None where that is not known."""
    known = [set(m.about["elements"]) for m in members if m.about["elements"] is not None]
    return sorted(set.intersection(*known)) if known else None


def forecasts(members: Sequence[Bundle], chunks: Iterable[Chunk]) -> Iterator[Forecast]:
    """Yields a row for each input and property.

    Args:
        members: the models.
        chunks: what `make_inference` makes of the inputs.
    """
    properties = list(members[0].model.heads)
    for chunk in chunks:
        columns = {name: _combine_members(members, name, chunk) for name in properties}
        told = zip(chunk.ids, chunk.reasons, chunk.remarks, strict=True)
        for i, (id, reason, remark) in enumerate(told):
            for name, numbers in columns.items():
                unit = members[0].model.transforms[name].unit
                prediction, low, high = (float(values[i]) for values in numbers)
                why, half = reason, (high - low) / 2
                if not reason and not math.isfinite(prediction):
                    prediction = low = high = half = math.nan
                    why = "the prediction is beyond all numbers"
                yield Forecast(id, name, prediction, unit, half, low, high, why, remark)


def blank_uncertainties(members: Sequence[Bundle]) -> list[str]:
    """Returns for each property whose uncertainty is left blank why it is.

    Args:
        members: the models.
    """
    if len(members) > 1:  # how far they disagree is one
        return []
    about = members[0].about
    return [
        f"The uncertainties of {name} are blank: the model, which was {about['source']}, has no "
        "labels beside it that tell how far its predictions are off. A finished run of train, "
        "finetune or choose has them."
        for name in members[0].model.heads
        if about["calibration"].get(name, {}).get("level") != LEVEL
    ]


def forecast_of(row: Mapping[str, str]) -> Forecast:
    """Returns a row as it was read from a file that holds the fields of a forecast."""
    names = ("prediction", "uncertainty", "low", "high")
    prediction, half, low, high = (float(row[name] or "nan") for name in names)
    about = row["reason"], row["remark"]
    return Forecast(row["id"], row["property"], prediction, row["unit"], half, low, high, *about)


def fingerprint(members: Sequence[Bundle]) -> str:
    """Returns what tells predictions of these models, intervals included, from those of others."""
    digest = hashlib.blake2b(digest_size=6)
    for member in members:
        digest.update(repr(member.model).encode())
        told = {name: member.about[name] for name in ("elements", "calibration", LEFT_OUT)}
        # Alone a model is all of the mean, whatever it was in another.
        shares = [weight_of(member), widening_of(member)] if len(members) > 1 else []
        digest.update(to_json([told, shares]).encode())
        for leaf in jax.tree.leaves(member.variables):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _combine_members(members: Sequence[Bundle], name: str, chunk: Chunk) -> _Combined:
    """Returns what `combine` makes of a property from what the members said."""
    scaled, widths = [], []
    for i, member in enumerate(members):
        heads = list(member.model.heads)
        column = heads.index(name)
        prediction, spread = (
            chunk.outputs[:, i, k].astype(np.float64) for k in (column, len(heads) + column)
        )
        scaled.append(prediction)
        width = half_widths(member.about["calibration"].get(name, {}), spread)
        widths.append(width * widening(member.about, name, chunk.new))
    return combine_members(members, name, scaled, widths)


def combine_members(
    members: Sequence[Bundle], name: str, scaled: Sequence[Any], widths: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what `combine` makes of a property, with the weights of the members in their mean."""
    transforms = [member.model.transforms[name] for member in members]
    shares = np.array([weight_of(member) for member in members])
    shares /= shares.sum()
    wider = float(shares @ [widening_of(member) for member in members])
    return combine(np.stack(scaled), transforms, widths, shares, wider)


def combine(
    scaled: np.ndarray,
    transforms: Sequence[TargetTransform],
    half_widths: Sequence[Any],
    shares: np.ndarray | None = None,
    widening: float = 1.0,
) -> _Combined:
    """Combines the predictions of one property by several models, or by one.

    The prediction is the mean of theirs in the unit. Beside it is an interval that should hold the
    true value with probability 0.9:

        one model: its conformal interval, see `jaxmat.bundles.intervals` (its ends are taken to the
            unit: with a logarithm it is wider on one side);
        several: see `mean_with_ends`.

    Args:
        scaled: predictions of the models, [models, inputs]; NaN where there is none.
        transforms: scaling of each model.
        half_widths: of the interval about a scaled prediction of each model, a number for all
            inputs or [inputs]; NaN where it is not calibrated.
        shares: of the models in the means, summing to 1, [models]; None: equal ones.
        widening: what the half width of several is multiplied by.

    Returns:
        Prediction, lower and upper end of the interval in the property's unit, [inputs] each; the
        ends are NaN where a single model is not calibrated.
    """
    if len(scaled) == 1:
        ends = (scaled[0], scaled[0] - half_widths[0], scaled[0] + half_widths[0])
        prediction, low, high = (transforms[0].to_unit(end) for end in ends)
        return prediction, low, high
    each = np.stack(
        [
            np.stack([t.to_unit(x), t.to_unit(x - h), t.to_unit(x + h)])
            for t, x, h in zip(transforms, scaled, half_widths, strict=True)
        ],
        axis=1,
    )
    if shares is None:
        shares = np.full(len(scaled), 1 / len(scaled))
    return mean_with_ends(each, shares, all(t.log for t in transforms), widening)


def combine_rows(
    rows: Sequence[Prediction], shares: np.ndarray, log: bool, widening: float = 1.0
) -> Prediction:
    """Combines what several models predict of one crystal, as `combine` does.

    Args:
        rows: one a model.
        shares: of the models, summing to 1, [models].
        log: whether all models predict the property's logarithm.
        widening: what the half width is multiplied by.
    """
    ends = np.array([[(row.prediction, row.low, row.high)] for row in rows]).transpose(2, 0, 1)
    combined = mean_with_ends(ends, shares, log, widening)
    prediction, low, high = (float(each[0]) for each in combined)
    return rows[0]._replace(prediction=prediction, low=low, high=high)


def mean_with_ends(
    ends: np.ndarray, shares: np.ndarray, log: bool, widening: float = 1.0
) -> _Combined:
    """Returns the mean of several models' predictions, and an interval about it.

    The mean is that of the predictions in the unit. The half width is √(c² + (1.645 s)²), c the
    mean of half the models' widths, s the sample standard deviation of their predictions: what all
    of them get wrong alike, and what they disagree on, as for a sum of independent normal errors.
    Where none is calibrated, c is 0, and what all of them get wrong alike is missed. Where all
    models predict the logarithm, so are these: the interval is wider above the mean than below.

    Args:
        ends: predictions, lower and upper ends of their intervals, in the unit, [3, models,
            inputs]; the ends of a model that is not calibrated are NaN.
        shares: of the models, summing to 1, [models].
        log: whether all models predict the property's logarithm.
        widening: what the half width is multiplied by, as `jaxmat.bundles.means.Mean` has it.

    Returns:
        Mean, lower and upper end in the unit, [inputs] each.
    """
    into, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    mean = shares @ ends[0]
    # A prediction may be too small or too large for exp.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values, low, high = (into(each) for each in ends)
        middle, center = into(mean), shares @ values
        variance = shares @ (values - center) ** 2 / (1 - shares @ shares)  # equal shares: n - 1
        halves = (high - low) / 2
        halves = halves[np.isfinite(halves).any(axis=1)]
        shared = halves.mean(axis=0) if len(halves) else 0.0
        half = widening * np.hypot(shared, _STANDARD_DEVIATIONS * np.sqrt(variance))
        return mean, back(middle - half), back(middle + half)
