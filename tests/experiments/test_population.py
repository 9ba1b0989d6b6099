"""Members of a population are what they would be alone."""

from __future__ import annotations

import json
import operator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmat.bundles.model import initial_variables
from jaxmat.data.batches import TrainingBatches
from jaxmat.data.order import Order
from jaxmat.errors import UserError
from jaxmat.experiments import run, training_run
from jaxmat.experiments.population import train_population
from jaxmat.experiments.prepare import graph_settings, prepare
from jaxmat.experiments.recipe import Constants, Recipe
from jaxmat.models.network import build_network
from jaxmat.models.trunk import Groups
from jaxmat.training.parallel import choose_placement
from jaxmat.transfer.strategies import Strategy

from .conftest import small_finetune, small_scratch, without_times

STEPS, RATES = 24, (1e-3, 3e-3, 1e-2)


def train_in_float64(config: ConfigDict, members: list[int]) -> list[dict[str, list[np.ndarray]]]:
    """Returns losses of all steps and final parameters of members trained together."""
    settings = graph_settings(config)
    data = [prepare(config.data, seed, settings).datasets["train"] for seed in members]
    network = build_network(config.network.trunk, {"a": {"kind": "linear"}})
    placement = choose_placement("one", len(members))
    orders = [Order(len(data[0].graphs), 4, STEPS // 8, seed, True) for seed in members]
    batches = TrainingBatches(
        list(zip(data, orders, strict=True)),
        max_shapes=1,
        stacked=placement.stacked,
        dtype=np.float64,
    )
    variables = [initial_variables(network, one, s) for one, s in zip(data, members, strict=True)]
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)

    recipe = Recipe(config.training, Strategy(), variables[0], Groups(), STEPS)
    each = [Constants(np.float64(RATES[seed]), {}) for seed in members]
    states = [recipe.create_state(*one) for one in zip(each, variables, strict=True)]
    state, constants = states[0], each[0]
    if len(members) > 1:
        state, constants = (
            jax.tree.map(lambda *leaves: np.stack(leaves), *trees) for trees in (states, each)
        )
        state = state._replace(step=states[0].step)
    step = placement.compiled(recipe.step(network), constants)
    state, losses = placement.put(state), []
    for batch in map(placement.feed, batches.from_step(0)):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    params = jax.tree.leaves(placement.take(state).params)
    if len(members) == 1:
        return [{"loss": losses, "params": params}]
    return [
        {"loss": [loss[i] for loss in losses], "params": [leaf[i] for leaf in params]}
        for i in range(len(members))
    ]


def test_parameters_are_those_of_single_runs_in_float64() -> None:
    """They differ in data, order, weights and learning rate."""
    config = small_scratch()
    with jax.enable_x64(True):
        together = train_in_float64(config, [0, 1, 2])
        alone = [train_in_float64(config, [seed])[0] for seed in (0, 1, 2)]
    assert len(together[0]["loss"]) == STEPS
    for member, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(member["loss"], single["loss"], rtol=1e-9)
        for one, other in zip(member["params"], single["params"], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    assert not np.allclose(together[0]["loss"], together[1]["loss"], rtol=1e-3)


def small_population(workdir: Path, pretrained: Path) -> tuple[list[ConfigDict], list[Path]]:
    configs = [small_finetune(pretrained), small_finetune(pretrained, learning_rate=1e-4)]
    configs[1].seed = 5
    return configs, [workdir / "one", workdir / "other"]


@pytest.mark.slow
def test_a_population_leaves_what_single_runs_leave(tmp_path: Path, pretrained: Path) -> None:
    configs, workdirs = small_population(tmp_path / "together", pretrained)
    results = train_population(configs, workdirs, tmp_path / "together")
    assert results is not None
    for config, workdir, result in zip(configs, workdirs, results, strict=True):
        alone = run(config, tmp_path / "alone" / workdir.name)
        assert alone is not None and result.keys() == alone.keys()
        for name in ("validation_mae", "test_mae", "test_mae_scaled"):
            assert result[name] == pytest.approx(alone[name], rel=1e-3)
        left = {path.name for path in (tmp_path / "alone" / workdir.name).iterdir()}
        # These are of a whole run, here that of the one who trains the members.
        of_all = {"report.html", "log.txt", "inputs.json"}
        assert {path.name for path in workdir.iterdir()} == left - of_all
        assert json.loads((workdir / "config.json").read_text()) == config.to_dict()


@pytest.mark.slow
def test_a_population_stopped_twice_ends_as_the_one_that_never_stopped(
    tmp_path: Path, pretrained: Path
) -> None:
    configs, workdirs = small_population(tmp_path / "whole", pretrained)
    whole = train_population(configs, workdirs, tmp_path / "whole")
    configs, workdirs = small_population(tmp_path / "broken", pretrained)
    for last in (1, 3):
        stop = partial(operator.eq, last)
        assert train_population(configs, workdirs, tmp_path / "broken", stop) is None
    resumed = train_population(configs, workdirs, tmp_path / "broken")
    assert whole is not None and resumed is not None
    for one, other in zip(whole, resumed, strict=True):
        assert without_times(one) == without_times(other)
    # Finished members are not trained again.
    assert train_population(configs, workdirs, tmp_path / "broken") == resumed


@pytest.mark.slow
def test_a_member_that_has_ended_is_kept_where_the_others_break_down(tmp_path: Path) -> None:
    configs = [small_scratch(learning_rate=rate, epochs=9, patience=2) for rate in (1e-9, 1e30)]
    workdirs = [tmp_path / "one", tmp_path / "other"]
    for _ in range(2):  # and so it stays when it is started again
        with pytest.raises(training_run.MembersFailed, match="1 of 2") as error:
            train_population(configs, workdirs, tmp_path)
        (reason,) = error.value.reasons.values()
        assert error.value.reasons.keys() == {workdirs[1]} and "broke down" in reason
        assert json.loads((workdirs[0] / "result.json").read_text())["test_mae"] > 0


@pytest.mark.slow
def test_a_population_of_which_nobody_is_left_names_them_all(tmp_path: Path) -> None:
    configs = [small_scratch(learning_rate=rate, epochs=9) for rate in (1e29, 1e30)]
    workdirs = [tmp_path / "one", tmp_path / "other"]
    with pytest.raises(training_run.MembersFailed, match="2 of 2") as error:
        train_population(configs, workdirs, tmp_path)
    assert error.value.reasons.keys() == set(workdirs)


def test_seeds_of_one_config(tmp_path: Path) -> None:
    config = small_scratch()
    config.population = 2
    result = run(config, tmp_path)
    assert result is not None and result["seeds"] == [0, 1]
    members = [json.loads((tmp_path / f"seed_{n}/result.json").read_text()) for n in (0, 1)]
    assert result["test_mae_by_seed"] == [member["test_mae"] for member in members]
    assert result["test_mae"] == pytest.approx(np.mean(result["test_mae_by_seed"]))
    assert members[0]["test_mae"] != members[1]["test_mae"]
    assert run(config, tmp_path) == result


def test_a_member_that_fails_keeps_no_other_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its training broke down or its network does not predict."""
    done: list[str] = []

    def finish(member: Any, trained: Any, *_: Any) -> dict[str, Any]:
        if member.workdir.name == "b":
            raise UserError("not finite")
        done.append(member.workdir.name)
        return {"crystals": {}}

    monkeypatch.setattr(training_run, "_finish", finish)
    nothing: Any = None
    members: list[Any] = [training_run.Member(tmp_path / name, *[nothing] * 6) for name in "abcd"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "result.json").write_text('{"crystals": {}}')
    outcomes: list[Any] = [UserError("broke down"), {}, {}, {}]
    with pytest.raises(training_run.MembersFailed, match="2 of 4") as error:
        training_run._finish_all(members, outcomes, nothing, {})
    assert error.value.reasons == {tmp_path / "a": "broke down", tmp_path / "b": "not finite"}
    assert done == ["c"]
    with pytest.raises(UserError, match="^broke down$"):  # a single one says no more than that
        training_run._finish_all(members[:1], outcomes[:1], nothing, {})


def test_groups_that_make_uneven_parts_are_told_before_graphs_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("jaxmat.experiments.prepare.make_graphs", built)
    config = small_scratch()
    config.population = 3
    config.data.update(split_by="chemical_system", n_train=0)
    with pytest.raises(UserError, match=r"split_by=chemical_system .*--config\.population=1"):
        run(config, tmp_path)


def test_members_that_need_other_programs_are_refused(tmp_path: Path) -> None:
    for field, value, message in (
        ("training.batch_size", 8, "more than seed, data and rate"),
        ("data.n_train", 16, "numbers of training crystals: 32 and 16"),
    ):
        configs = [small_scratch(), small_scratch()]
        with configs[1].unlocked():
            configs[1].update_from_flattened_dict({field: value})
        with pytest.raises(UserError, match=message):
            workdirs = [tmp_path / field / name for name in ("one", "other")]
            train_population(configs, workdirs, tmp_path / field)
