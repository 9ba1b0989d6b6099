"""What each field of a config may be; all that is wrong with a config is told in one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from pymatgen.core import Element

from jaxmat.crystals.graph import GRAPH_VALUES
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.left_out import LEAST
from jaxmat.experiments.matbench import TASKS
from jaxmat.experiments.protocols import PROTOCOLS
from jaxmat.experiments.recipe import AVERAGES, DECAY_MASKS, LOSSES, SCHEDULES
from jaxmat.experiments.splitting import WAYS
from jaxmat.models.network import PRECISIONS, build_network
from jaxmat.runtime import files
from jaxmat.training.parallel import KINDS
from jaxmat.transfer.strategies import STRATEGIES
from jaxmat.values import (
    Allowed,
    flag,
    nearest,
    one_of,
    optional,
    problem,
    real,
    several,
    text,
    whole,
)

_SEED = whole(0, 2**31 - 1)


def _is_way(value: Any) -> bool:
    ways = r"random|stratified|composition|chemical_system|column:.+|element:[A-Z][a-z]?"
    return isinstance(value, str) and re.fullmatch(ways, value) is not None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w{0,100}", value) is not None


def _is_choice_of_elements(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if re.fullmatch(r"\d{1,3}", value, re.ASCII):
        return int(value) >= LEAST
    return not value or all(map(Element.is_valid_symbol, value.split(",")))


_DATA: Mapping[str, Allowed] = {
    "path": text(),
    "tables": text(),
    "united": several(text()),
    "target": text(),
    "unit": text(),
    "id_column": text(),
    "property": Allowed('letters, digits and "_"', _is_name),
    "split": text(),
    "split_by": Allowed(WAYS, _is_way),
    "folds": whole(0, 1000),
    "fold": whole(0, 999),
    "n_train": whole(0, 10**9),
    "n_validation": whole(0, 10**9),
    "n_test": whole(0, 10**9),
    "test_seed": _SEED,
    "graph_store": text(),
    "max_sites": whole(0, 10**9),
    "max_rejected_fraction": real(0, 1),
    "read_seconds": real(0.1, 10**5),
    "read_megabytes": whole(300, 10**6),
    "read_workers": whole(0, 1000),
    "log": flag(),
    "scaling": one_of("standard", "minmax"),
    "scaling_labels": one_of("training", "all"),
    "unseen": several(text()),
}

_TRAINING: Mapping[str, Allowed] = {
    "epochs": whole(1, 10**6),
    "steps": whole(0, 10**9),
    "batch_size": whole(1, 10**5),
    "drop_last": flag(),
    "max_shapes": whole(1, 100),
    "loss": one_of(*LOSSES),
    "average": one_of(*AVERAGES),
    "property_temperature": real(0, 1000),
    "schedule": one_of(*SCHEDULES),
    "learning_rate": real(above=0, most=10),
    "weight_decay": real(0, 10),
    "decay": one_of(*DECAY_MASKS),
    "ema_decay": real(0, below=1),
    "evaluate_every": whole(1, 10**6),
    "save_every": whole(1, 10**6),
    "skipped_in_a_row": whole(1, 10**6),
    "devices": one_of(*KINDS),
    "precision": one_of(*PRECISIONS),
    "remat": flag(),
    "test_with": one_of("best", "last"),
    "patience": whole(0, 10**6),
}

_STUDY: Mapping[str, Allowed] = {
    "title": text(),
    "sources": several(text()),
    "source_sizes": several(whole(0, 10**9), least=1),
    "targets": several(text()),
    "target_sizes": several(whole(2, 10**9), least=1),
    "strategies": several(text()),
    "learning_rates": several(_TRAINING["learning_rate"], least=1),
    "trials": several(whole(0, 2**31 - 1), least=1),
    "seeds": several(_SEED, least=1),
    "scratch": flag(),
}

_JOB: Mapping[str, Allowed] = {
    "action": one_of("run", "dry_run", "pretrain", "report"),
    "cells": text(),
    "population": whole(1, 1000),
    "published": text(),
}

# Fields that stand by themselves; the others are in the part of that name.
_WHOLE: Mapping[str, Allowed] = {
    "experiment": text(),
    "seed": _SEED,
    "seeds": whole(1, 1000),
    "population": whole(1, 1000),
    "leave_out_elements": Allowed(
        f"'', a number from {LEAST} on, or symbols of elements with commas between them",
        _is_choice_of_elements,
    ),
    "start_from": text(),
    "task": one_of(*TASKS),
    "strategy": one_of(*STRATEGIES),
    "protocol": one_of(*PROTOCOLS),
    "candidates": several(text()),
    "strategies": several(text()),
    "gaussian_process": flag(),
    "scratch": flag(),
    "element_features": several(text()),
    "minutes": real(0, 10**7),
    "blend": flag(),
    "folds": whole(2, 1000),
    "repeats": whole(1, 1000),
}
_PARTS: Mapping[str, Mapping[str, Allowed]] = {
    "data": _DATA,
    "graph": GRAPH_VALUES,
    "training": _TRAINING,
    "pretraining": _TRAINING,
    "study": _STUDY,
    "job": _JOB,
}
# Of several properties of one table.
_PROPERTY: Mapping[str, Allowed] = {"target": text(), "unit": text(), "log": flag()}

# What a config of each experiment is like.
_LIKE: Mapping[str, Callable[[], ConfigDict]] = {
    "scratch": defaults.scratch,
    "pretrain": defaults.scratch,
    "finetune": defaults.finetune,
    "gaussian_process": defaults.gaussian_process,
    "evaluate": defaults.evaluate,
    "choose": defaults.choose,
    "study": lambda: defaults.study("title"),
    "matbench": defaults.matbench,
    "quickstart": lambda: ConfigDict(
        {
            "experiment": "quickstart",
            "seed": 0,
            "seeds": 1,
            "finetune": defaults.finetune(),
            "network": defaults.network(),
        }
    ),
}
# Parts that only some configs have, and those that are configs themselves.
_OPTIONAL = ("data.properties", "data.left_out", "pretrain")
_CONFIGS = ("pretrain", "finetune")


def allowed(name: str) -> Allowed | None:
    """Returns what a field may be, None where another part of the program knows.

    Args:
        name: such as "training.epochs" or "pretrain.training.epochs".
    """
    *parts, field = name.split(".")
    return (_PARTS.get(parts[-1], {}) if parts and parts[-1] not in _CONFIGS else _WHOLE).get(field)


def check_config(config: ConfigDict) -> None:
    """Checks every field of a config before anything is done.

    Args:
        config: of any experiment.

    Raises:
        UserError: fields that are unknown, missing or not allowed; all in one message.
    """
    if found := list(_problems(config, "config.")):
        raise UserError(f"This config cannot be run:\n{listed(found, most=30)}")


def _problems(config: ConfigDict, place: str) -> Iterator[str]:
    kind = config.get("experiment")
    if not isinstance(kind, str) or kind not in _LIKE:
        yield problem(f"{place}experiment", kind, one_of(*_LIKE)) or ""
        return
    like = _LIKE[kind]()
    yield from _names(config, like, place)
    for name, value in config.items():
        if name in _CONFIGS and isinstance(value, ConfigDict):
            yield from _problems(value, f"{place}{name}.")
        elif name in _PARTS:
            yield from _values(value, _PARTS[name], f"{place}{name}.", like.get(name, {}))
        elif name in _WHOLE and (wrong := problem(place + name, value, _WHOLE[name])):
            yield wrong
    yield from _unused(config, place)
    yield from _network(config)
    for name, one in _properties(config).items():
        yield from _values(one, _PROPERTY, f"{place}data.properties.{name}.", _PROPERTY)


def _properties(config: ConfigDict) -> Mapping[str, Any]:
    """Returns the part of several properties of one table, {} where there is none."""
    data = config.get("data")
    found = data.get("properties") if isinstance(data, ConfigDict) else None
    return found if isinstance(found, ConfigDict) else {}


def _names(config: ConfigDict, like: ConfigDict, place: str) -> Iterator[str]:
    """Yields fields that are missing or unknown in a config and its parts."""
    data = config.get("data")
    several_properties = isinstance(data, ConfigDict) and "properties" in data
    for path, here, there in _levels(config, like):
        own = tuple(there)
        for name in here:
            if name not in there and path + name not in _OPTIONAL:
                near = nearest(name, own)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                yield f"{place}{path}{name} is not a field{hint}"
        for name in there:
            left_out = several_properties and path == "data." and name in DATA_OF_ONE
            if name not in here and not left_out:
                yield f"{place}{path}{name} is missing"


# Fields that a table of several properties has for each of them.
DATA_OF_ONE = ("target", "unit", "property", "log")


def _levels(config: ConfigDict, like: ConfigDict) -> Iterator[tuple[str, Any, Any]]:
    yield "", config, like
    for name in _PARTS:
        if isinstance(config.get(name), ConfigDict) and name in like:
            yield f"{name}.", config[name], like[name]


def _values(
    part: Any, known: Mapping[str, Allowed], place: str, like: Mapping[str, Any]
) -> Iterator[str]:
    """Yields what is wrong with the values of a part; None is right where it is the default."""
    if not isinstance(part, (ConfigDict, Mapping)):
        yield f"{place.removesuffix('.')} has no fields"
        return
    for name, value in part.items():
        if name in known:
            may_be = optional(known[name]) if like.get(name, "") is None else known[name]
            if wrong := problem(place + name, value, may_be):
                yield wrong


def _unused(config: ConfigDict, place: str) -> Iterator[str]:
    """Yields fields that would go unheard because another one says all there is to say."""
    data, usual = config.get("data"), defaults.data()
    if isinstance(data, ConfigDict) and isinstance(data.get("split"), str) and data.split:
        for name in ("n_train", "split_by", "folds", "fold", *_given_parts(data.split)):
            if name in data and data[name] != usual[name]:
                yield (
                    f"{place}data.{name} is {data[name]!r}, but {place}data.split says which "
                    f"crystals each part has: leave out one of them ({name}={usual[name]!r})"
                )
    for name in ("training", "pretraining") if config.get("experiment") == "study" else ():
        part = config.get(name)
        if isinstance(part, ConfigDict) and part.get("epochs") and part.get("steps"):
            yield (
                f"{place}{name} has epochs ({part.epochs}) and steps ({part.steps}), two ways to "
                "say how long a training is: leave out one of them"
            )


def _given_parts(split: str) -> Iterator[str]:
    """Yields the fields for the sizes of those parts that a file of a split has."""
    try:
        names = files.read_json(Path(split))
    except UserError:  # what is wrong with it is told where it is used
        return
    if any("val" in name for name in names):  # ALIGNN's names, too
        yield "n_validation"
    if any("test" in name for name in names):
        yield "n_test"


def _network(config: ConfigDict) -> Iterator[str]:
    """Yields why there is no such network, where the config says all that it is."""
    if "network" not in config:
        return
    try:
        trunk, head = config.network.trunk.to_dict(), config.network.head.to_dict()
        if head.get("kind") is None:  # the protocol's
            head = {"kind": "linear"}
        if trunk.get("kind") is not None:
            build_network(trunk, {"property": head})
    except AttributeError:
        yield "config.network needs the parts trunk and head"
    except UserError as error:
        yield f"config.network: {error}"
