"""Protocols as data: all that two ways to train on the same labels may differ in.

In the config of a study each field that a protocol fixes is None, "as the protocol says"; a value
given there, in a config file or on the command line, goes before the protocol's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from jaxmat.errors import UserError

SECTIONS = ("graph", "data", "training", "pretraining")
# Two ways to say how long a training is: the later word replaces both.
_LENGTH = ("epochs", "steps")
# Of a training, unless said otherwise: a curve to look at, and little lost when it breaks down.
_EVALUATIONS, _SAVES = 25, 10
_FOLLOWING = (*_LENGTH, "evaluate_every", "save_every")

Fields = Mapping[str, Any]
ByLabels = tuple[tuple[float, Fields], ...]


@dataclass(frozen=True)
class Protocol:
    """Fields of a config; see jaxmat.experiments.defaults for their meanings.

    Attributes:
        graph: fields of `graph`.
        data: fields of `data`.
        training: fields of `training` whatever the number of labels; either `epochs` or `steps`,
            for which as many epochs are made as it takes.
        by_labels: fields of `training` for at most so many labels, in ascending order.
        trunk: kind of trunk of a new network.
        by_trunk: kind of trunk → fields like `by_labels`, which go before those.
        pretraining: what is different in a pre-training.
        log_heavy_tails: whether positive targets with a heavy tail are trained on the logarithm.
        head: options of every head of a new network.
    """

    graph: Fields = field(default_factory=dict)
    data: Fields = field(default_factory=dict)
    training: Fields = field(default_factory=dict)
    by_labels: ByLabels = ()
    trunk: str = "alignn"
    by_trunk: Mapping[str, ByLabels] = field(default_factory=dict)
    pretraining: Fields = field(default_factory=dict)
    log_heavy_tails: bool = False
    head: Fields = field(default_factory=lambda: {"kind": "linear"})

    def fields(
        self, section: str, labels: float, *, trunk: str = "", heavy_tail: bool = False
    ) -> dict[str, Any]:
        """Returns the fields of a section that it fixes.

        Args:
            section: one of `SECTIONS`.
            labels: to train and validate on.
            trunk: kind of trunk; "": its own.
            heavy_tail: whether they are positive and have a heavy tail.
        """
        if section == "graph":
            return dict(self.graph)
        if section == "data":
            return {**self.data, "log": self.log_heavy_tails and heavy_tail}
        fixed = dict(self.training)
        for by_labels in (self.by_labels, self.by_trunk.get(trunk or self.trunk, ())):
            fixed = _over(fixed, next((some for most, some in by_labels if labels <= most), {}))
        return _over(fixed, self.pretraining) if section == "pretraining" else fixed


PROTOCOLS: Mapping[str, Protocol] = {
    # What the authors' configs and scripts do, scaling with test labels and all.
    "published": Protocol(
        graph={"neighbor_rule": "reference", "canonical": True},
        data={"scaling": "minmax", "scaling_labels": "all"},
        training={
            "epochs": 500,
            "drop_last": True,
            "loss": "mse",
            "average": "entries",
            "schedule": "onecycle",
            "weight_decay": 1e-5,
            "decay": "published",
            "ema_decay": 0.0,
            "test_with": "last",
        },
        by_labels=(
            (10, {"batch_size": 1}),
            (100, {"batch_size": 2}),
            (math.inf, {"batch_size": 16}),
        ),
        pretraining={"learning_rate": 1e-4},
    ),
    # What the authors' multi-property scripts do, in pre-training and in fine-tuning. They do not
    # shuffle; that is not repeated. They stopped 30 epochs after the best, the 17th to 24th.
    "published_multi_property": Protocol(
        graph={"neighbor_rule": "reference", "canonical": False},
        data={"scaling": "minmax", "scaling_labels": "all"},
        training={
            "epochs": 500,
            "batch_size": 16,
            "drop_last": False,
            "loss": "l1",
            "average": "entries",
            "schedule": "onecycle",
            "weight_decay": 1e-2,
            "decay": "published",
            "ema_decay": 0.0,
            "test_with": "last",
        },
        pretraining={
            "epochs": 50,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "test_with": "best",
        },
        head={"kind": "mlp", "hidden_layers": 2},
    ),
    # Only the test sees test labels, an outlier does not own the loss (L1, logarithm), and a
    # training is as long for few labels as for many. Batch norm never sees a crystal alone, whose
    # statistics are not the running ones that a test uses. The moving average of the weights is
    # tested; below 20 validation crystals the last one, as they cannot choose. In AdamW, where the
    # learning rate multiplies it, a weight decay of 1e-5 would do nothing.
    "sound": Protocol(
        graph={"neighbor_rule": "complete_shells", "canonical": True},
        data={"scaling": "standard", "scaling_labels": "training"},
        training={
            "steps": 2000,
            "drop_last": True,
            "loss": "l1",
            "average": "properties",
            "schedule": "onecycle",
            "weight_decay": 1e-2,
            "decay": "kernels",
            "ema_decay": 0.99,
        },
        by_labels=(
            (15, {"batch_size": 8, "test_with": "last"}),
            (199, {"batch_size": 16, "test_with": "last"}),
            (math.inf, {"batch_size": 16, "test_with": "best"}),
        ),
        trunk="cogn",
        by_trunk={
            "cogn": (
                (199, {"schedule": "warmup_cosine", "steps": 1000}),
                (math.inf, {"schedule": "warmup_cosine", "steps": 3000}),
            )
        },
        pretraining={"learning_rate": 1e-3, "steps": 10_000},
        log_heavy_tails=True,
    ),
}


def open_fields(section: str) -> set[str]:
    """Returns the fields that are None in the config of a study.

    They are those that some protocol fixes, and of a training those that follow from its length.

    Args:
        section: one of `SECTIONS`.
    """
    names = {
        name
        for protocol in PROTOCOLS.values()
        for labels in (*(most for most, _ in protocol.by_labels), math.inf)
        for name in protocol.fields(section, labels)
    }
    return names.union(_FOLLOWING if section.endswith("training") else ())


def get_protocol(name: str) -> Protocol:
    """Returns a protocol by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(f"config.protocol is {name!r}; use one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def settle(
    config: ConfigDict, section: str, *, labels: float = math.inf, heavy_tail: bool = False
) -> dict[str, Any]:
    """Returns the fields of a section: what the config says, and the protocol where it is silent.

    Args:
        config: of a study.
        section: one of `SECTIONS`.
        labels: to train and validate on.
        heavy_tail: whether they are positive and have a heavy tail.
    """
    fixed = get_protocol(config.protocol).fields(
        section, labels, trunk=config.network.trunk.kind or "", heavy_tail=heavy_tail
    )
    said = {name: value for name, value in config[section].items() if value is not None}
    return _over(fixed, said)


def settle_network(config: ConfigDict) -> ConfigDict:
    """Returns the network of a study; trunk and head are the protocol's unless it has kinds.

    Args:
        config: of a study.
    """
    network, protocol = config.network.copy_and_resolve_references(), get_protocol(config.protocol)
    if network.trunk.kind is None:
        network.trunk.kind = protocol.trunk
    if network.head.kind is None:
        network.head = ConfigDict(dict(protocol.head))
    return network


def settle_training(
    config: ConfigDict, section: str, *, n_train: int, n_validation: int
) -> dict[str, Any]:
    """Returns the fields of `training` of a run, with the epochs that its steps take.

    Args:
        config: of a study.
        section: "training" or "pretraining".
        n_train: labels to train on.
        n_validation: labels to validate on.

    Raises:
        UserError: nothing says how long to train.
    """
    fields = settle(config, section, labels=n_train + n_validation)
    steps = fields.pop("steps", 0)
    if not (steps or fields.get("epochs")):
        raise UserError(f"config.{section} has neither epochs nor steps; set one of them.")
    epochs = fields.setdefault("epochs", math.ceil(steps / steps_per_epoch(fields, n_train)))
    fields.setdefault("evaluate_every", max(1, epochs // _EVALUATIONS))
    fields.setdefault("save_every", max(1, epochs // _SAVES))
    return fields


def steps_per_epoch(training: Fields, n_train: int) -> int:
    """Returns the number of batches of an epoch.

    Args:
        training: fields of `training`.
        n_train: labels to train on.
    """
    size = training["batch_size"]
    drops = training["drop_last"] and n_train > size
    return n_train // size if drops else math.ceil(n_train / size)


def _over(fields: Fields, later: Fields) -> dict[str, Any]:
    """Returns fields with later ones over them."""
    replaced = _LENGTH if any(name in later for name in _LENGTH) else ()
    return {**{name: fields[name] for name in fields if name not in replaced}, **later}
