"""Strategies beyond the published ones, through the same door as those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxmat.bundles.bundle import load
from jaxmat.experiments import run
from jaxmat.training.checkpoints import load_variables

from .conftest import small_finetune, without_times
from .test_single import leaves


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["layer_wise", "source_penalty"])
def test_gentler_tunings_stay_nearer_to_the_source(
    tmp_path: Path, pretrained: Path, strategy: str
) -> None:
    source = leaves(load_variables(pretrained)[0]["params"]["trunk"])

    def distance(name: str) -> float:
        config = small_finetune(pretrained, name, test_with="last", learning_rate=1e-2)
        assert run(config, tmp_path / name)
        tuned = leaves(load(tmp_path / name).variables["params"]["trunk"])
        return float(sum(np.sum((tuned[leaf] - source[leaf]) ** 2) for leaf in source))

    assert 0 < distance(strategy) < distance("all_layers")


@pytest.mark.slow
def test_a_stopped_run_goes_on_behind_the_fitting_of_its_head(
    tmp_path: Path, pretrained: Path
) -> None:
    """The first phase is repeated, to the same bits."""
    whole = run(small_finetune(pretrained, "head_first"), tmp_path / "whole")
    for step in (0, 1, 3):
        config = small_finetune(pretrained, "head_first")
        assert run(config, tmp_path / "broken", stop=lambda at, stop=step: at == stop) is None
    resumed = run(small_finetune(pretrained, "head_first"), tmp_path / "broken")
    assert whole is not None and resumed is not None
    assert without_times(whole) == without_times(resumed)
    one, other = (leaves(load(tmp_path / name).variables) for name in ("whole", "broken"))
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], err_msg=name)


def test_a_factor_is_chosen_among_interpolations(tmp_path: Path, pretrained: Path) -> None:
    result = run(small_finetune(pretrained, "interpolation"), tmp_path)
    assert result is not None
    assert result["interpolation_factor"] in [i / 10 for i in range(11)]
    tuned = load_variables(tmp_path)[0]["params"]["trunk"]
    source = load_variables(pretrained)[0]["params"]["trunk"]
    chosen = leaves(load(tmp_path).variables["params"]["trunk"])
    factor = result["interpolation_factor"]
    for name, leaf in leaves(tuned).items():
        between = leaves(source)[name] * (1 - factor) + leaf * factor
        np.testing.assert_allclose(chosen[name], between, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_soup_is_the_mean_of_its_members(tmp_path: Path, pretrained: Path) -> None:
    result = run(small_finetune(pretrained, "soup"), tmp_path)
    assert result is not None and result["test_mae"] > 0
    members = [load_variables(tmp_path / f"member_{i}")[0]["params"] for i in range(5)]
    soup = leaves(load(tmp_path).variables["params"])
    for name in leaves(members[0]):
        each = np.stack([leaves(member)[name] for member in members])
        np.testing.assert_allclose(soup[name], each.mean(axis=0), atol=1e-6, err_msg=name)
        # The same start and data in different orders.
        assert name.endswith("kernel") <= bool(np.ptp(each, axis=0).max() > 0)
