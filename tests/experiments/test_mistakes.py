"""What a user can get wrong, and the message that says how to mend it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from jaxmat.bundles.bundle import load
from jaxmat.errors import UserError
from jaxmat.experiments import run
from jaxmat.experiments.prepare import read_labelled

from .conftest import small_finetune, small_scratch


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.path", "", "config.data.path is not set"),
        ("data.unit", "", "config.data.unit is not set. A table needs .* --unit=UNIT"),
        ("data.target", "hardness", "hardness"),
        ("data.n_train", 5000, "cannot draw 5000 .* Lower data.n_train, .* or give more labels"),
        ("data.scaling", "robust", "robust"),
        ("graph.neighbor_rule", "voronoi", "complete_shells"),
        ("network.trunk.kind", "megnet", "alignn"),
        ("network.head.kind", "forest", "linear_pair"),
        ("training.loss", "cross_entropy", "huber"),
        ("training.schedule", "linear", "onecycle"),
        ("training.decay", "all", "kernels"),
        ("experiment", "dance", "quickstart"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    config = small_scratch()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        run(config, tmp_path)


def test_an_unknown_trunk_option_is_named(tmp_path: Path) -> None:
    config = small_scratch()
    config.network.trunk.depth = 3
    with pytest.raises(UserError, match=r"'cogn' has no option depth; it has .*layers"):
        run(config, tmp_path)


def write_table(path: Path, elements: list[str]) -> None:
    def structure(element: str) -> dict[str, Any]:
        return {
            "@class": "Structure",
            "lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]},
            "sites": [{"species": [{"element": element, "occu": 1}], "abc": [0, 0, 0]}],
        }

    content = {
        "index": [f"crystal-{i}" for i in range(len(elements))],
        "columns": ["structure", "hardness"],
        "data": [[structure(element), float(i)] for i, element in enumerate(elements)],
    }
    with gzip.open(path, "wt") as stream:
        json.dump(content, stream)


def test_unusable_structures_are_named_together(tmp_path: Path) -> None:
    write_table(tmp_path / "table.json.gz", ["Si", "Qq", "Xx", "Ge"])
    config = small_scratch()
    config.data.update(path=str(tmp_path / "table.json.gz"), target="hardness", unit="GPa")
    with pytest.raises(UserError, match=r"(?s)crystal-1.*Qq.*crystal-2.*Xx"):
        read_labelled(config.data)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist; give a bundle"):
        run(small_finetune(tmp_path / "nowhere"), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("allsix", r"allsix does not exist; did you mean all_six, which comes with the package\?"),
        ("all_six,no_dielectric", "does not exist; where it names several models, give one of"),
    ],
)
def test_a_model_that_is_not_there_is_asked_back(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    assert run(small_scratch(), tmp_path, stop=lambda step: step == 2) is None
    file = tmp_path / "config.json"
    resolved = json.loads(file.read_text())
    resolved["network"]["trunk"]["width"] = 24
    file.write_text(json.dumps(resolved))
    config = small_scratch()
    config.network.trunk.width = 24
    with pytest.raises(UserError, match=r"trunk/.*: expected float32\[24\], found float32\[16\]"):
        run(config, tmp_path)
