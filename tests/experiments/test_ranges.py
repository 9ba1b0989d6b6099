"""Every field of every config is held against what it may be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.commands.configs import config_names, load_config
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.ranges import allowed, check_config

CONFIGS = [f"{name}{variant}" for name in config_names() for variant in ("", ":smoke")]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_has_its_range_and_the_defaults_lie_in_it(name: str) -> None:
    config = load_config(name)
    check_config(config)
    for field in flatten_dict(config.to_dict(), sep="."):
        assert ".trunk." in field or ".head." in field or allowed(field) is not None, field


def test_several_properties_are_a_config() -> None:
    config = defaults.multi_property()
    config.data.properties.gap = {"target": "e_gap", "unit": "eV", "log": False}
    check_config(config)
    config.data.properties.gap = {"target": 3, "unit": "eV", "log": "yes"}
    with pytest.raises(UserError, match=r"(?s)gap\.log is 'yes'.*gap\.target is 3"):
        check_config(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training.learning_rate", math.nan),
        ("training.learning_rate", -1.0),
        ("training.learning_rate", 0.0),
        ("training.weight_decay", math.nan),
        ("training.weight_decay", -1e-3),
        ("training.ema_decay", 1.0),
        ("training.epochs", 0),
        ("training.epochs", -3),
        ("training.batch_size", 0),
        ("training.max_shapes", 0),
        ("training.evaluate_every", 0),
        ("training.save_every", 0),
        ("training.patience", -1),
        ("training.test_with", "x"),
        ("training.loss", "L1"),
        ("training.average", ""),
        ("training.devices", "tpu"),
        ("training.precision", "float64"),
        ("training.property_temperature", math.inf),
        ("training.skipped_in_a_row", 0),
        ("data.n_train", -1),
        ("data.test_seed", -1),
        ("data.test_seed", 2**40),
        ("data.max_rejected_fraction", 1.5),
        ("data.max_rejected_fraction", math.nan),
        ("data.scaling", "robust"),
        ("data.property", "a b"),
        ("graph.max_neighbors", 0),
        ("graph.cutoff", math.nan),
        ("graph.tolerance", -1.0),
        ("seed", -1),
        ("population", 0),
        ("network.trunk.width", 0),
        ("network.trunk.alignn_layers", -1),
        ("network.trunk.bond_bins", 1),
        ("network.head.kind", "forest"),
    ],
)
def test_a_senseless_value_is_named(field: str, value: Any) -> None:
    config = defaults.scratch(path="bundled:dielectric", target="poly_total", unit="1")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError) as error:
        check_config(config)
    assert field.rpartition(".")[2] in str(error.value).lower()
    assert "Traceback" not in str(error.value)


def test_all_findings_come_in_one_message_with_nearest_names() -> None:
    config = defaults.finetune()
    config.strategy, config.seed = "all_layer", -1
    config.training.loss = "l11"
    config.training.epocs = 3
    del config.training.batch_size
    with pytest.raises(UserError) as error:
        check_config(config)
    text = str(error.value)
    for part in (
        "config.strategy is 'all_layer'",
        "did you mean 'all_layers'",
        "config.seed is -1; it has to be a whole number from 0 to",
        "config.training.loss is 'l11'",
        "config.training.epocs is not a field; did you mean epochs",
        "config.training.batch_size is missing",
    ):
        assert part in text


def test_parts_that_are_configs_are_checked_as_well() -> None:
    config = load_config("quickstart").copy_and_resolve_references()
    config.unlock()
    config.finetune.training.patience = -1
    with pytest.raises(UserError, match=r"config\.finetune\.training\.patience is -1"):
        check_config(config)


@pytest.mark.parametrize("config", [ConfigDict(), ConfigDict({"experiment": 3})])
def test_a_config_without_an_experiment(config: ConfigDict) -> None:
    with pytest.raises(UserError, match=r"config\.experiment is .*'quickstart'"):
        check_config(config)


def test_a_study_may_leave_to_its_protocol_what_others_may_not() -> None:
    config = defaults.study("title")
    check_config(config)
    with config.unlocked():
        config.training.batch_size, config.study.trials = 0, ()
    with pytest.raises(UserError, match=r"(?s)trials is \(\).*|batch_size is 0"):
        check_config(config)


@pytest.mark.parametrize(
    ("fields", "unheard"),
    [
        ({"data.n_train": 30}, "n_train"),
        ({"data.split_by": "composition"}, "split_by"),
        ({"data.folds": 5, "data.fold": 1}, "folds"),
        ({"data.n_validation": 3}, "n_validation"),
        ({"data.n_test": 3}, ""),  # the file has no such part: it is drawn
    ],
)
def test_what_a_split_file_says_already_is_not_said_again(
    tmp_path: Path, fields: dict[str, Any], unheard: str
) -> None:
    config = defaults.choose(path="bundled:dielectric", target="poly_total", unit="1")
    config.data.split = str(tmp_path / "split.json")
    (tmp_path / "split.json").write_text('{"id_train": ["a"], "id_val": ["b"]}')
    check_config(config)
    config.update_from_flattened_dict(fields)
    if not unheard:
        return check_config(config)
    with pytest.raises(UserError, match=rf"config\.data\.{unheard} is .* config\.data\.split"):
        check_config(config)


def test_a_study_is_told_once_how_long_to_train() -> None:
    config = defaults.study("title")
    config.training.steps = 100
    check_config(config)
    config.training.epochs = 7
    with pytest.raises(UserError, match=r"config\.training has epochs \(7\) and steps \(100\)"):
        check_config(config)
