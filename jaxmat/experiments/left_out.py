"""How wrong a model is about elements that it has not met: elements are left out of trainings.

A network that sees elements by their properties alone, or a Gaussian process on descriptors, can be
asked about any element. How far its answers are to be trusted is measured: for each of some
elements the model of the config is trained without all crystals that hold it, and predicts these.
The test part takes no part in it. From the errors follows by how much wider intervals have to be
about crystals with elements that the final model, trained on all of them, has not met.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from pymatgen.core import Element

from jaxmat.bundles.intervals import LEFT_OUT, LEVEL, error_ratios
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.splits import write_split
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, listed
from jaxmat.experiments.outcome import property_suffix
from jaxmat.experiments.population import train_population
from jaxmat.experiments.prepare import Prepared, graph_settings, prepare
from jaxmat.experiments.single import prepare_member
from jaxmat.experiments.total import Total, Work
from jaxmat.experiments.training_run import train
from jaxmat.experiments.workdir import read_result
from jaxmat.models.elements import knows_elements_apart
from jaxmat.models.network import make_trunk
from jaxmat.report.predictions import Prediction, read_predictions
from jaxmat.report.tables import format_quantity
from jaxmat.training.metrics import grouped_conformal_factor

_logger = logging.getLogger(__name__)

LEAST = 9  # elements: fewer tell nothing about 90 % of all
# Elements that are drawn are held by so many crystals at least, and by this share at most: without
# more of them the training would be another.
_CRYSTALS, _SHARE = 3, 0.2
_FOLDER = "elements"
# Crystals without an element that are left to train and to validate on at least.
_LEAST_LEFT = {"train": 2, "validation": 1}
# Parts of the data that take part.
_PARTS = tuple(_LEAST_LEFT)

Result = dict[str, Any]
Stop = Callable[[int], bool]
# Part of the data → which of its crystals hold an element, bool [crystals].
_Holders = Mapping[str, np.ndarray]


class _Errors(NamedTuple):
    """Errors on the crystals with an element, of a model that was trained without them.

    Attributes:
        ratio: over half the width of the interval, both scaled, [crystals].
        mae: in the unit.
    """

    ratio: np.ndarray
    mae: float


def train_and_measure(config: ConfigDict, workdir: Path, stop: Stop) -> Result | None:
    """Leaves elements out one after the other, then trains the model on all.

    What is done in the directory is not done again.

    Args:
        config: of a training from random weights or a Gaussian process on descriptors;
            `leave_out_elements` is a number of elements to be drawn, or their symbols.
        workdir: of the run; gets elements/SYMBOL, the run without an element.
        stop: asked after every step of a training whether to save and return.

    Returns:
        The result of the model, or None where a training was stopped.

    Raises:
        UserError: the model knows nothing of elements that it has not met, or an element cannot be
            left out.
    """
    _refuse(config)
    data = prepare(config.data, config.seed, _graph_settings(config))
    holders = choose_elements(config.leave_out_elements, data, config.seed)
    places = {symbol: workdir / _FOLDER / symbol for symbol in holders}
    left = [symbol for symbol, place in places.items() if read_result(place) is None]
    total = Total({name: Work(1.0) for name in (*left, "all")})
    _logger.info(
        "%d elements are left out one after the other (%s): %d trainings as long as that of the "
        "model itself, which comes last",
        *(len(places), ", ".join(places), len(places)),
    )
    for symbol, place in places.items():
        one = _config_without(config, workdir, symbol, data, holders[symbol])
        if total.run(symbol, functools.partial(_train_alone, one, place, stop)) is None:
            return None
    member = prepare_member(config, workdir)
    about = member.about | {LEFT_OUT: measure(data.transforms, places)}
    member = member._replace(about=about)
    return total.run("all", lambda: _only(train([member], workdir, stop)))


def _train_alone(config: ConfigDict, place: Path, stop: Stop) -> Result | None:
    return _only(train_population([config], [place], place, stop))


def _only(results: list[Result] | None) -> Result | None:
    return None if results is None else results[0]


def choose_elements(wanted: str, data: Prepared, seed: int) -> dict[str, _Holders]:
    """Returns the elements to leave out, and which crystals hold them.

    Args:
        wanted: their number, to be drawn at random from those that a few crystals hold at least and
            a fifth of them at most; or their symbols with commas between them.
        data: the data sets.
        seed: of the drawing.

    Raises:
        UserError: there are not so many, or one cannot be left out.
    """
    numbers = {p: [set(g.atomic_number.tolist()) for g in data.datasets[p].graphs] for p in _PARTS}
    every = sorted({z for part in numbers.values() for one in part for z in one})
    holders = {
        Element.from_Z(z).symbol: {p: np.array([z in one for one in numbers[p]]) for p in _PARTS}
        for z in every
    }
    if not wanted.isdigit():
        names = list(dict.fromkeys(wanted.split(",")))
        problems = [f"{name}: {why}" for name in names if (why := _obstacle(holders.get(name)))]
        if problems or len(names) < LEAST:
            problems += [f"{len(names)} are named; {LEAST} are needed"] * (len(names) < LEAST)
            raise UserError(f"config.leave_out_elements:\n{listed(problems)}")
        return {name: holders[name] for name in names}
    most = _SHARE * sum(map(len, numbers.values()))
    held = {symbol: sum(int(p.sum()) for p in one.values()) for symbol, one in holders.items()}
    fit = [s for s, n in held.items() if _CRYSTALS <= n <= most and not _obstacle(holders[s])]
    if len(fit) < int(wanted):
        raise UserError(
            f"config.leave_out_elements is {wanted}, but only {len(fit)} elements are held by "
            f"{_CRYSTALS} crystals or more of the training and validation parts and by "
            f"{_SHARE:.0%} of them at most. Lower it ({LEAST} at least), or give more labels."
        )
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    drawn = np.random.RandomState([seed, 3]).permutation(fit)[: int(wanted)].tolist()
    return {symbol: holders[symbol] for symbol in sorted(drawn, key=fit.index)}


def _obstacle(holders: _Holders | None) -> str:
    """Returns why an element cannot be left out, "" where it can."""
    if holders is None:
        return "no crystal of the training and validation parts holds it"
    left = {part: int((~holders[part]).sum()) for part in _PARTS}
    if few := [f"{left[p]} to the {p} part" for p in _PARTS if left[p] < _LEAST_LEFT[p]]:
        return f"without it too few crystals are left: {', '.join(few)}"
    return ""


def measure(
    transforms: Mapping[str, TargetTransform], places: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Returns what bundles tell of elements left out; see `jaxmat.bundles.intervals`.

    Args:
        transforms: of the properties.
        places: element → finished run without it.

    Returns:
        Of each property with labels on crystals of elements enough.
    """
    measured = {}
    for name, transform in transforms.items():
        file = f"predictions{property_suffix(transforms, name)}.csv"
        tested = {
            symbol: [
                row
                for row in read_predictions(place / file)
                if row.split == "test" and _is_whole(row)
            ]
            for symbol, place in places.items()
        }
        errors = {symbol: _errors(rows, transform) for symbol, rows in tested.items() if rows}
        if len(errors) < LEAST:
            _logger.warning(
                "%s: crystals of only %d of the elements have a label, which says too little: the "
                "model will not be asked about elements that it has not met.",
                *(name, len(errors)),
            )
            continue
        wider = grouped_conformal_factor([one.ratio for one in errors.values()], LEVEL)
        maes = {symbol: one.mae for symbol, one in errors.items()}
        measured[name] = {
            "widening": max(1.0, wider),
            "crystals": sum(len(one.ratio) for one in errors.values()),
            "mae_by_element": maes,
        }
        _logger.info(
            "%s: MAE on crystals with an element left out of training %s, the mean over %d "
            "elements; intervals are %.2g times as wide there",
            *(name, format_quantity(float(np.mean(list(maes.values()))), transform.unit)),
            *(len(maes), measured[name]["widening"]),
        )
    return measured


def _errors(rows: Sequence[Prediction], transform: TargetTransform) -> _Errors:
    target, prediction, low, high = np.array(
        [(row.target, row.prediction, row.low, row.high) for row in rows]
    ).T
    ratio = error_ratios(transform, target, prediction, low, high)
    return _Errors(ratio, float(np.mean(np.abs(prediction - target))))


def _is_whole(row: Prediction) -> bool:
    return bool(np.isfinite([row.target, row.prediction, row.low, row.high]).all())


def _config_without(
    config: ConfigDict, workdir: Path, symbol: str, data: Prepared, holders: _Holders
) -> ConfigDict:
    """Returns the config of the training without an element, and writes its split."""
    ids = {part: np.array(data.ids[part], object) for part in _PARTS}
    split = {part: ids[part][~holders[part]].tolist() for part in _PARTS}
    split["test"] = [id for part in _PARTS for id in ids[part][holders[part]]]
    file = workdir / _FOLDER / "splits" / f"{symbol}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_split(file, split)
    one = ConfigDict(config.to_dict())
    one.leave_out_elements = ""
    one.data.split = str(file)
    return one


def _graph_settings(config: ConfigDict) -> GraphSettings:
    if "network" not in config:
        return GraphSettings(**config.graph, angles=False)
    return graph_settings(config)


def _refuse(config: ConfigDict) -> None:
    """Refuses models and ways to run that this is not for."""
    if config.population > 1 or jax.process_count() > 1:
        raise UserError(
            "config.leave_out_elements is for one training in one process: leave out "
            "config.population and --distributed."
        )
    features = make_trunk(config.network.trunk).element_features if "network" in config else ""
    if features and knows_elements_apart(features):
        raise UserError(
            f"config.leave_out_elements: with the element features {features!r} the network has "
            "something of its own for each element, which says nothing of one that it has not met. "
            "Use --config.network.trunk.element_features=properties."
        )
