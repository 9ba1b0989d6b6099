"""Predictions of properties, by one model or several, with what they are worth.

from jaxmat.bundles.predict import predict
for row in predict("DIR", structures):
print(row.id, row.prediction, row.unit, row.uncertainty)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from jaxmat.bundles.bundle import Bundle, load
from jaxmat.bundles.inference import Chunk, Function, Inference, Step
from jaxmat.data.reading import Source, read
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, listed
from jaxmat.runtime.stopping import passing_signals_on
from jaxmat.training.step import make_predict_step

LEVEL = 0.9  # probability of the interval about a prediction
_STANDARD_DEVIATIONS = NormalDist().inv_cdf((1 + LEVEL) / 2)  # half of it for a normal distribution
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
            `unit`, see `combine`; NaN where it is not known.
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
        models: a bundle, run directory or checkpoint, or several that predict the same.
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
    """Reads models that predict together.

    Raises:
        UserError: there is none, one cannot be read, or properties, units or graphs differ.
    """
    if not paths:
        raise UserError("Give at least one model.")
    members = [load(path) for path in paths]
    traits = [_traits(member) for member in members]
    if problems := [
        f"{path}: {name} {trait.get(name)}, not {value}"
        for path, trait in zip(paths, traits, strict=True)
        for name, value in traits[0].items()
        if trait.get(name) != value
    ]:
        raise UserError(
            "Models that predict together need the same properties, units and graphs; these "
            f"differ from {paths[0]}:\n{listed(problems)}"
        )
    return members


def _traits(member: Bundle) -> dict[str, Any]:
    units = {f"unit of {name}": t.unit for name, t in member.model.transforms.items()}
    return {"properties": sorted(member.model.heads), **units, **member.model.graph.to_dict()}


def make_inference(members: Sequence[Bundle]) -> Inference:
    """Returns what computes the scaled predictions of each model."""
    functions: dict[str, Function] = {}  # seeds of one network share it and its programs
    steps = []
    for member in members:
        kind = json.dumps([member.model.trunk, member.model.heads])
        if kind not in functions:
            functions[kind] = make_predict_step(member.model.network())
        steps.append(Step(functions[kind], member.variables))
    known = [set(m.about["elements"]) for m in members if m.about["elements"] is not None]
    return Inference(
        steps,
        columns=len(members[0].model.heads),
        graph=members[0].model.graph,
        elements=sorted(set.intersection(*known)) if known else None,
    )


def forecasts(members: Sequence[Bundle], chunks: Iterable[Chunk]) -> Iterator[Forecast]:
    """Yields a row for each input and property.

    Args:
        members: the models.
        chunks: what `make_inference` makes of the inputs.
    """
    properties = list(members[0].model.heads)
    for chunk in chunks:
        columns = {name: _combine_members(members, name, chunk.outputs) for name in properties}
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


def _combine_members(members: Sequence[Bundle], name: str, outputs: np.ndarray) -> _Combined:
    """Returns what `combine` makes of a property from outputs [inputs, members, heads]."""
    scaled = [
        outputs[:, i, list(member.model.heads).index(name)].astype(np.float64)
        for i, member in enumerate(members)
    ]
    transforms = [member.model.transforms[name] for member in members]
    fitted = [member.about["calibration"].get(name, {}) for member in members]
    half_widths = [f["half_width"] if f.get("level") == LEVEL else np.nan for f in fitted]
    return combine(np.stack(scaled), transforms, half_widths)


def combine(
    scaled: np.ndarray, transforms: Sequence[TargetTransform], half_widths: Sequence[float]
) -> _Combined:
    """Combines the predictions of one property by several models, or by one.

    The prediction is the mean of theirs in the unit. Beside it is an interval that should hold the
    true value with probability 0.9:

        one model: its conformal interval, calibrated on validation crystals (its ends are taken to
            the unit: with a logarithm it is wider on one side);
        several: ± √(c² + (1.645 s)²), c the mean of half these widths, s the sample standard
            deviation of the models' predictions: what all of them get wrong alike, and what they
            disagree on, as for a sum of independent normal errors. It is wide rather than narrow,
            since c holds some of the disagreement, too;
        several, none calibrated: ± 1.645 s, which misses what all of them get wrong alike.

    Args:
        scaled: predictions of the models, [models, inputs]; NaN where there is none.
        transforms: scaling of each model.
        half_widths: of the interval about a scaled prediction of each model; NaN where it is not
            calibrated.

    Returns:
        Prediction, lower and upper end of the interval in the property's unit, [inputs] each; the
        ends are NaN where a single model is not calibrated.
    """
    if len(scaled) == 1:
        ends = (scaled[0], scaled[0] - half_widths[0], scaled[0] + half_widths[0])
        prediction, low, high = (transforms[0].to_unit(end) for end in ends)
        return prediction, low, high
    values = np.stack([t.to_unit(x) for t, x in zip(transforms, scaled, strict=True)])
    calibrated = np.array(
        [
            (t.to_unit(x + h) - t.to_unit(x - h)) / 2
            for t, x, h in zip(transforms, scaled, half_widths, strict=True)
            if np.isfinite(h)
        ]
    )
    spread = _STANDARD_DEVIATIONS * values.std(axis=0, ddof=1)
    shared = calibrated.mean(axis=0) if len(calibrated) else 0.0
    mean, half = values.mean(axis=0), np.hypot(shared, spread)
    return mean, mean - half, mean + half
