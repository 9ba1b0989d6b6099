"""The grid of a study: stable names, shares that cover it, groups that train together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.cells import (
    Cell,
    make_grid,
    pretrainings,
    share_of,
    units,
)

TABLES = ("dc", "fe", "ph")


def axes(**values: Any) -> ConfigDict:
    given = {"target_sizes": (10, 100), "trials": (1, 2), "source_sizes": (941,)}
    return defaults.study("a title", **given | values).study


def ids(**values: Any) -> list[str]:
    return [cell.id for cell in make_grid(axes(**values), TABLES)]


def test_ids() -> None:
    """Directories are found by them: they must never change."""
    assert ids(
        sources=("fe",), targets=("dc", "fe"), target_sizes=(100,), source_sizes=(941, 0)
    ) == [
        "scratch-dc-100-lr0.001-t1-s0",
        "scratch-dc-100-lr0.001-t2-s0",
        "scratch-fe-100-lr0.001-t1-s0",
        "scratch-fe-100-lr0.001-t2-s0",
        "finetune-fe-941-dc-100-all_layers-lr0.001-t1-s0",
        "finetune-fe-941-dc-100-all_layers-lr0.001-t2-s0",
        "finetune-fe-all-dc-100-all_layers-lr0.001-t1-s0",
        "finetune-fe-all-dc-100-all_layers-lr0.001-t2-s0",
    ]
    grid = make_grid(axes(sources=("fe",), source_sizes=(941, 0), seeds=(0, 7)), TABLES)
    assert [run.id for run in pretrainings(grid)] == [
        "pretrain-fe-941-s0",
        "pretrain-fe-941-s7",
        "pretrain-fe-all-s0",
        "pretrain-fe-all-s7",
    ]


def test_ids_do_not_depend_on_the_rest_of_the_grid() -> None:
    small = ids()
    more = {
        "learning_rates": (1e-5, 1e-3),
        "strategies": ("new_head", "all_layers"),
        "trials": (1, 2, 3),
        "seeds": (1, 0),
    }
    for name, values in more.items():
        larger = ids(**{name: values})
        assert len(larger) == len(set(larger)) > len(small)
        assert set(small) < set(larger)


def test_every_table_against_every_other() -> None:
    grid = make_grid(axes(target_sizes=(10,), trials=(1,)), TABLES)
    pairs = {(cell.source, cell.target) for cell in grid}
    assert pairs == {(a, b) for a in ("", *TABLES) for b in TABLES if a != b}
    assert len(grid) == 9


def test_a_grid_without_fine_tuning_or_without_scratch() -> None:
    assert all(id.startswith("scratch") for id in ids(strategies=()))
    assert all(id.startswith("finetune") for id in ids(scratch=False))


def test_all_tables_at_once() -> None:
    values = {"targets": ("dc",), "target_sizes": (10,), "trials": (1,), "scratch": False}
    grid = make_grid(axes(sources=("others", "all", "each"), **values), TABLES)
    assert [cell.id for cell in grid] == [
        "finetune-others-941-dc-10-all_layers-lr0.001-t1-s0",
        "finetune-all-941-dc-10-all_layers-lr0.001-t1-s0",
        "finetune-fe-941-dc-10-all_layers-lr0.001-t1-s0",
        "finetune-ph-941-dc-10-all_layers-lr0.001-t1-s0",
    ]
    assert [run.id for run in pretrainings(grid)] == [
        "pretrain-all_but_dc-941-s0",
        "pretrain-all-941-s0",
        "pretrain-fe-941-s0",
        "pretrain-ph-941-s0",
    ]
    with pytest.raises(UserError, match="may not be called all"):
        make_grid(axes(), ("all", "dc"))


def test_names_on_the_command_line() -> None:
    assert ids(sources=("fe, ph",), targets=("dc",)) == ids(sources=("fe", "ph"), targets=("dc",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": ("fe", "hardness")}, "no table hardness; there are dc, fe, ph"),
        ({"targets": ("hardness",)}, "study.targets"),
        ({"strategies": ("guess",)}, "'guess' is unknown"),
        ({"trials": ()}, "study.trials is empty"),
        ({"target_sizes": (1,)}, "2 labels at least"),
        ({"strategies": (), "scratch": False}, "no cells"),
    ],
)
def test_a_wrong_axis_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ids(**values)


GRID = make_grid(axes(seeds=(0, 1), learning_rates=(1e-3, 1e-4)), TABLES)


@given(st.integers(1, 200))
def test_shares_are_a_disjoint_cover(n: int) -> None:
    shares = [share_of(GRID, f"{i}/{n}") for i in range(1, n + 1)]
    assert [cell for share in shares for cell in share] == GRID
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("share", ["0/4", "5/4", "1/0", "1", "-1/4", "1/4x"])
def test_a_wrong_share_is_refused(share: str) -> None:
    with pytest.raises(UserError, match="job.cells"):
        share_of(GRID, share)


@given(st.integers(1, 10))
def test_populations_differ_in_trial_and_learning_rate_alone(most: int) -> None:
    groups = units(GRID, most)
    assert [cell for unit in groups for cell in unit] == GRID
    for unit in groups:
        assert 1 <= len(unit) <= most
        assert len({cell._replace(trial=0, learning_rate=0.0) for cell in unit}) == 1
    if most == 4:  # two trials at two rates
        assert {len(unit) for unit in groups} == {4}


def test_a_population_of_none_is_refused() -> None:
    with pytest.raises(UserError, match="job.population"):
        units([Cell("", 0, "dc", 10, "", 1e-3, 1, 0)], 0)
