"""Presets that fix all that two ways to train may differ in, field by field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.protocols import (
    PROTOCOLS,
    SECTIONS,
    Protocol,
    open_fields,
    settle,
    settle_network,
    settle_training,
    steps_per_epoch,
)


def study(protocol: str, **fields: Any) -> ConfigDict:
    config = defaults.study("a title")
    config.protocol = protocol
    config.lock()
    config.update_from_flattened_dict(fields)
    return config


def training(config: ConfigDict, labels: int) -> dict[str, Any]:
    n_validation = max(1, labels // 10)
    counts = {"n_train": labels - n_validation, "n_validation": n_validation}
    return settle_training(config, "training", **counts)


@pytest.mark.parametrize(
    ("labels", "batch_size", "steps"),
    [(10, 1, 4500), (100, 2, 22500), (200, 16, 5500), (500, 16, 14000), (800, 16, 22500)],
)
def test_published_steps(labels: int, batch_size: int, steps: int) -> None:
    """The numbers of the authors' runs: 500 epochs whose last, smaller batch is dropped."""
    fields = training(study("published"), labels)
    assert fields["batch_size"] == batch_size
    assert fields["epochs"] * steps_per_epoch(fields, labels - labels // 10) == steps


@pytest.mark.parametrize("labels", [10, 100, 200, 500, 800])
def test_sound_steps_depend_little_on_the_number_of_labels(labels: int) -> None:
    """And on the trunk: where nothing is said, that of the protocol."""
    enough = labels >= 200
    for trunk, steps in ((None, 3000 if enough else 1000), ("alignn", 2000)):
        fields = training(study("sound", **{"network.trunk.kind": trunk}), labels)
        per_epoch = steps_per_epoch(fields, labels - labels // 10)
        assert steps <= fields["epochs"] * per_epoch < steps + per_epoch
        assert fields["test_with"] == ("best" if enough else "last")
        assert fields["schedule"] == ("onecycle" if trunk else "warmup_cosine")


def test_each_protocol_has_its_trunk_and_a_config_another() -> None:
    kinds = {name: settle_network(study(name)).trunk.kind for name in PROTOCOLS}
    assert kinds.pop("sound") == "cogn" and set(kinds.values()) == {"alignn"}
    said = study("sound", **{"network.trunk.kind": "alignn", "network.trunk.width": 32})
    assert settle_network(said).trunk.width == 32


def test_protocols_fix_the_same_fields() -> None:
    """Or the default of one would slip into the other."""
    for section in SECTIONS:
        fixed = [
            set(protocol.fields(section, labels)) - {"epochs", "steps"}
            for protocol in PROTOCOLS.values()
            for labels in (10, 50, 100, 150, 941, math.inf)
        ]
        assert all(names == fixed[0] for names in fixed), section


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_field_can_be_overridden(protocol: str) -> None:
    others = {
        **{"neighbor_rule": "other", "scaling": "other", "loss": "huber", "decay": "other"},
        **{"scaling_labels": "other", "epochs": 3, "batch_size": 5, "steps": 7},
        **{
            "schedule": "other",
            "weight_decay": 0.5,
            "ema_decay": 0.5,
            "test_with": "other",
            "learning_rate": 0.5,
        },
        **{"evaluate_every": 9, "save_every": 9, "average": "other"},
    }
    for section in SECTIONS:
        for name in open_fields(section) - ({"learning_rate"} if section == "training" else set()):
            before = settle(study(protocol), section, labels=100)
            flag = isinstance(before.get(name), bool)
            other = not before[name] if flag else others[name]
            after = settle(study(protocol, **{f"{section}.{name}": other}), section, labels=100)
            assert before.get(name) != other == after[name], name
            length = {"epochs", "steps"}
            same = before.keys() - {name} - (length if name in length else set())
            assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_the_later_word_on_the_length_counts() -> None:
    assert training(study("sound", **{"training.epochs": 3}), 200)["epochs"] == 3
    assert training(study("published", **{"training.steps": 110}), 200)["epochs"] == 10
    assert settle(study("sound"), "pretraining", labels=941)["steps"] == 10_000


def test_a_heavy_tail_is_trained_on_the_logarithm_unless_it_is_said() -> None:
    def log(protocol: str, heavy_tail: bool, **fields: Any) -> bool:
        return settle(study(protocol, **fields), "data", heavy_tail=heavy_tail)["log"]

    assert log("sound", True) and not log("sound", False) and not log("published", True)
    assert log("published", False, **{"data.log": True})
    assert not log("sound", True, **{"data.log": False})


def test_a_protocol_is_one_entry_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the multi-property one of the paper."""
    mpt = Protocol(
        graph={"neighbor_rule": "reference", "canonical": False},
        data={"scaling": "minmax", "scaling_labels": "all"},
        training={
            **PROTOCOLS["published"].training,
            **{"loss": "l1", "weight_decay": 0.01, "drop_last": False, "batch_size": 16},
        },
        pretraining={"learning_rate": 1e-3},
    )
    monkeypatch.setitem(PROTOCOLS, "mpt", mpt)  # type: ignore[arg-type]
    config = study("mpt")
    assert settle(config, "graph")["canonical"] is False
    assert {labels: training(config, labels)["batch_size"] for labels in (10, 800)} == {
        10: 16,
        800: 16,
    }


def test_the_head_is_the_protocol_s_unless_it_is_said() -> None:
    assert settle_network(study("sound")).head.to_dict() == {"kind": "linear"}
    deep = {"kind": "mlp", "hidden_layers": 2}
    assert settle_network(study("published_multi_property")).head.to_dict() == deep
    said = study("sound", **{"network.head.kind": "mlp"})
    assert settle_network(said).head.to_dict() == {"kind": "mlp"}


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match=r"'best'; use one of published, .*sound"):
        settle(study("best"), "graph")


def test_a_training_without_an_end_is_refused() -> None:
    with pytest.raises(UserError, match="neither epochs nor steps"):
        training(study("sound", **{"training.steps": 0}), 100)
