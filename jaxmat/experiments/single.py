"""Single experiments: training from scratch, and fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmat import __version__
from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import load
from jaxmat.bundles.model import Model, initial_variables
from jaxmat.bundles.shipped import NONE, shipped_names
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.batches import one_epoch
from jaxmat.errors import UserError
from jaxmat.experiments.closed_form import head_options
from jaxmat.experiments.labelled import wanted_properties
from jaxmat.experiments.prepare import Prepared, graph_settings, prepare
from jaxmat.experiments.recipe import elementwise_loss
from jaxmat.experiments.seen_before import tell_start
from jaxmat.experiments.training_run import Member, train
from jaxmat.experiments.workdir import write_json
from jaxmat.models.heads import is_fitted, make_head
from jaxmat.models.network import complete_options
from jaxmat.transfer.head_first import HeadFirst, fit_head, pool
from jaxmat.transfer.strategies import (
    Strategy,
    require_groups,
    target_head,
    trainable,
    transfer_rules,
)
from jaxmat.transfer.trees import copied_params, summarize, transfer

_logger = logging.getLogger(__name__)

TRANSFER = "transfer.json"  # what became of each leaf of the network
_POOLING_BATCH = 64  # crystals whose vectors are computed at once

Result = dict[str, Any]
Stop = Callable[[int], bool]


def never(step: int) -> bool:
    """Stops no training."""
    return False


def train_one(config: ConfigDict, workdir: Path, stop: Stop = never) -> Result | None:
    """Trains one network, from random weights or from a checkpoint.

    Returns:
        The result, or None where training was stopped.
    """
    results = train([prepare_member(config, workdir)], workdir, stop)
    return None if results is None else results[0]


def prepare_member(config: ConfigDict, workdir: Path) -> Member:
    """Returns all that the training of a config needs.

    Raises:
        UserError: anything in the config or the files it names that the user can mend.
    """
    if config.experiment == "finetune":
        return _finetune(config, workdir)
    if config.experiment == "gaussian_process":
        return _gaussian_process(config, workdir)
    return _scratch(config, workdir)


def _scratch(config: ConfigDict, workdir: Path) -> Member:
    """A training from random weights (a pre-training is one, too)."""
    trunk = complete_options(config.network.trunk)
    settings = graph_settings(config)
    data = prepare(config.data, config.seed, settings, workdir)
    heads = {name: config.network.head.to_dict() for name in data.transforms}
    model = Model(trunk, heads, settings, data.transforms)
    variables = initial_variables(model.network(), data.datasets["train"], config.seed)
    about = make_about(f"trained from random weights, jaxmat {__version__}", elements=[])
    return Member(workdir, config.training, config.seed, data, model, variables, about)


def _gaussian_process(config: ConfigDict, workdir: Path) -> Member:
    """A Gaussian process on descriptors, without any checkpoint."""
    name = only_property(config)
    settings = GraphSettings(**config.graph, angles=False)
    data = prepare(config.data, config.seed, settings, workdir)
    head = head_options(data, COLUMNS, descriptors=False)
    model = Model({"kind": "descriptors"}, {name: head}, settings, data.transforms)
    about = make_about(f"fitted to descriptors, jaxmat {__version__}", elements=[])
    nothing: dict[str, Any] = {"params": {}, "batch_stats": {}}
    return Member(workdir, ConfigDict(), config.seed, data, model, nothing, about)


def _finetune(config: ConfigDict, workdir: Path) -> Member:
    """A fine-tuning of a checkpoint on one property, on graphs like those it was trained on."""
    name = only_property(config)
    start = load(start_place(config))
    source, source_variables, before, seen = start
    strategy = require_groups(config.strategy, source.groups())
    _refuse_closed_form(config, strategy, source)
    data = prepare(config.data, config.seed, source.graph, workdir, known=source.transforms)
    data = tell_start(start, data, config.start_from, workdir)
    head, continued = target_head(strategy, name, source.heads)
    if is_fitted(head):
        width = source.network().bind(source_variables).trunk.width
        head = head_options(data, width, head["descriptors"])
    model = Model(source.trunk, {name: head}, source.graph, data.transforms)
    initial = initial_variables(model.network(), data.datasets["train"], config.seed)
    rules, dropped = transfer_rules(name, continued)
    weights = {kind: source_variables[kind] for kind in initial}
    variables, report = transfer(weights, initial, rules, dropped)
    _logger.info("Weights of %s:\n%s", config.start_from, summarize(report))
    trains = trainable(variables["params"], strategy, source.groups())
    fates = [
        fate._asdict() | {"trains": trains.get(fate.name.removeprefix("params/"))}
        for fate in report
    ]
    write_json(workdir / TRANSFER, fates)
    copied = copied_params(variables, report)
    if strategy.head_first is not None:
        variables = _head_first(strategy.head_first, config.training, data, model, variables)
    about = make_about(
        f"fine-tuned from {config.start_from} ({config.strategy}), jaxmat {__version__}",
        elements=before["elements"],
    )
    return Member(
        *(workdir, config.training, config.seed, data, model, variables, about, strategy, copied),
        seen=seen,
    )


def _refuse_closed_form(config: ConfigDict, strategy: Strategy, source: Model) -> None:
    """Refuses to train on where a source has nothing that trains.

    Raises:
        UserError: so it is.
    """
    if source.trunk["kind"] == "descriptors":
        raise UserError(
            f"{config.start_from} is a Gaussian process on descriptors: there is no network in it "
            "to start from. Fit another to the new labels: --config=gaussian_process."
        )
    if strategy.head is None and all(is_fitted(head) for head in source.heads.values()):
        raise UserError(
            f"The head of {config.start_from} is a Gaussian process, which cannot be trained on; "
            "use a strategy with a new head, such as head_first or gaussian_process."
        )


def _head_first(
    settings: HeadFirst,
    config: ConfigDict,
    data: Prepared,
    model: Model,
    variables: dict[str, Any],
) -> dict[str, Any]:
    """Returns the variables with the head fitted to what the trunk makes of the data."""
    ((name, options),) = model.heads.items()
    training, validation = (
        pool(model.network(), variables, one_epoch(data.datasets[part], _POOLING_BATCH))
        for part in ("train", "validation")
    )
    head, loss = fit_head(
        make_head(options),
        variables["params"][f"heads_{name}"],
        training,
        validation,
        settings=settings,
        elementwise=elementwise_loss(config),
    )
    _logger.info("Head fitted first: validation loss %.4g", loss)
    return variables | {"params": variables["params"] | {f"heads_{name}": head}}


def only_property(config: ConfigDict) -> str:
    """Returns the name of the one property that a config is about.

    Raises:
        UserError: there are several.
    """
    names = [one.name for one in wanted_properties(config.data)]
    if len(names) > 1:
        raise UserError(
            f"Experiment {config.experiment!r} is about one property, but config.data.properties "
            f"has {', '.join(names)}; give config.data.target and config.data.unit, as "
            f"configs/{config.experiment}.py does, and start it once for each property."
        )
    return names[0]


def start_place(config: ConfigDict) -> str:
    """Returns where the model is that a config starts from, or tests.

    Raises:
        UserError: none is named.
    """
    if config.start_from in ("", NONE):
        models = (
            f"give one that comes with the package ({', '.join(shipped_names())}), a bundle, the "
            "directory of a run or a checkpoint"
        )
        if config.experiment == "evaluate":
            raise UserError(
                f"There is no model to test; {models}: --model=DIR (in a config start_from)."
            )
        raise UserError(
            f"There is no model to start from; {models}: --start_from=DIR (in a config "
            "start_from). Random weights are what `jaxmat train` starts from."
        )
    return config.start_from
