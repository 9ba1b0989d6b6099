"""Inspection: every number of a network is in one group; a difference is found where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxmat.bundles.bundle import Bundle, read_bundle, save_bundle
from jaxmat.bundles.describe import compare, describe, group_leaves
from jaxmat.bundles.means import Mean, write_mean
from jaxmat.commands.command import execute
from jaxmat.commands.inspect import COMMAND
from jaxmat.errors import UserError

EXAMPLE = Path(__file__).parents[1] / "bundles" / "v1"


@pytest.fixture(scope="module")
def example() -> Bundle:
    return read_bundle(EXAMPLE)


def cells(text: str, heading: str) -> list[list[str]]:
    """Returns the rows of the table below a heading."""
    section = text.split(f"## {heading}\n\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()[2:]]


def test_groups_are_the_blocks_of_the_published_strategies(example):
    groups = group_leaves(example)
    assert list(groups) == ["embedding", "two-body", "three-body", "head poly_total"]
    names = [name for leaves in groups.values() for name in leaves]
    assert sorted(names) == sorted(flatten_dict(example.variables, sep="/"))
    assert "params/trunk/gcn_layers_0/src_gate/kernel" in groups["two-body"]
    assert "params/trunk/alignn_layers_0/node_update/src_gate/bias" in groups["two-body"]
    assert "batch_stats/trunk/alignn_layers_0/edge_update/bn_nodes/var" in groups["three-body"]
    assert "params/trunk/angle_embedding_1/linear/kernel" in groups["embedding"]
    strange = {"params": {"trunk": {"new_block": {"kernel": np.ones(3)}}}}
    others = group_leaves(example._replace(variables=strange))
    assert others["other"].keys() == {"params/trunk/new_block/kernel"}


def test_the_table_of_weights_adds_up(example):
    rows = {name: numbers for name, *numbers in cells(describe(example), "Weights")}
    total = rows.pop("all")
    for column in (0, 1, 3):
        assert sum(int(numbers[column]) for numbers in rows.values()) == int(total[column])
    parameters = jax.tree.leaves(example.variables["params"])
    assert int(total[1]) == sum(leaf.size for leaf in parameters)
    norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=float)) for leaf in parameters))
    assert float(total[2]) == pytest.approx(norm, rel=1e-3)


def test_a_description_tells_what_is_known(example):
    text = describe(example)
    transform, half_width = (
        example.model.transforms["poly_total"],
        example.about["calibration"]["poly_total"]["half_width"],
    )
    (head,) = cells(text, "Heads")
    assert head[:3] == ["poly_total", "1", "linear"]
    assert "ln(poly_total)" in head[3] and f"{transform.scale:.3f}"[:4] in head[3]
    assert "90%" in head[4] and f"{half_width:.3f}"[:4] in head[4]
    for line in ("- trunk.width: 16", "- graph.max_neighbors: 12", "- crystals.train: 32"):
        assert line in text
    assert f"- test_mae: {example.about['metrics']['test_mae']:.6g}" in text
    assert example.about["data"]["fingerprint"] in text


def test_nothing_is_made_up_about_an_unknown_origin(example):
    about = {**example.about, "elements": None, "data": None, "metrics": {}, "calibration": {}}
    text = describe(example._replace(about=about))
    assert text.count("not known") == 3 and "not calibrated" in text


def test_a_model_does_not_differ_from_itself(example):
    text = compare(example, example)
    assert "## What differs\n\nnothing" in text
    for _, *numbers in cells(text, "Weights that differ"):
        assert [float(x) for x in numbers if x][-2:] == [0, 0] and float(numbers[0]) == 0


def test_a_difference_is_found_in_its_group(example):
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 1.5 if "edge_update" in str(path) else leaf, example.variables
    )
    del scaled["params"]["heads_poly_total"]
    graph = replace(example.model.graph, max_neighbors=8)
    about = {**example.about, "elements": ["H"]}
    other = Bundle(replace(example.model, graph=graph), scaled, about)
    text = compare(example, other)
    differences = {name: rest for name, *rest in cells(text, "What differs")}
    assert differences == {
        "graph.max_neighbors": ["12", "8"],
        "elements": [f"{len(example.about['elements'])}: {' '.join(example.about['elements'])}"]
        + ["1: H"],
    }
    weights = {name: numbers for name, *numbers in cells(text, "Weights that differ")}
    assert [float(x) for x in weights["three-body"][:2]] == [0.5, 0.5]
    for group in ("embedding", "two-body"):
        assert [float(x) for x in (*weights[group][:2], *weights[group][3:])] == [0, 0, 0, 0]
    assert weights["head poly_total"] == ["", "", "0", "0", "2"]


def test_the_program_prints_both(tmp_path, example, run_jaxmat):
    save_bundle(tmp_path / "other", example._replace(about={**example.about, "source": "copied"}))
    done = run_jaxmat("inspect", EXAMPLE, tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# {EXAMPLE}") and "copied" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b", "c"]])
def test_mistakes_are_refused(arguments):
    with pytest.raises(UserError):
        execute(COMMAND, ["inspect", *arguments])


def test_what_a_model_says_of_itself_does_nothing_to_a_terminal(example, tmp_path, capsys):
    hostile = "\x1b[2J\u202e\x07"
    about = example.about | {"source": hostile, "metrics": {hostile: 1.0}}
    transforms = {
        name: replace(one, unit=hostile) for name, one in example.model.transforms.items()
    }
    model = replace(example.model, transforms=transforms)
    save_bundle(tmp_path / "hostile", example._replace(model=model, about=about))
    execute(COMMAND, ["jaxmat inspect", str(tmp_path / "hostile"), str(EXAMPLE)])
    shown = capsys.readouterr().out
    assert r"\x1b[2J\u202e\x07" in shown
    assert not set(hostile[:1] + hostile[4:]) & set(shown)


def test_of_a_mean_each_model_is_described(example, tmp_path, capsys):
    for name in ("one", "two"):
        save_bundle(tmp_path / name, example)
    write_mean(tmp_path, Mean(["one", "two"], [0.25, 0.75], {}))
    execute(COMMAND, ["jaxmat inspect", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.count("## Heads") == 2
    assert "# 25% of the mean" in said and "# 75% of the mean" in said
