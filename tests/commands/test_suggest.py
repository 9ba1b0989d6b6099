"""The command that suggests: which model it asks, when it refuses, and what it says."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle, read_bundle, save_bundle
from jaxmat.bundles.model import Model
from jaxmat.bundles.predict import Forecast
from jaxmat.commands import suggest
from jaxmat.commands.command import execute
from jaxmat.crystals.descriptors import COLUMNS, descriptor_blocks
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.training.gaussian_process import fit

EXAMPLE = Path(__file__).parents[1] / "bundles" / "v1"  # a network, without a process
EDGES = np.linspace(4.0, 7.0, 12)  # Å


def crystal(edge: float) -> Structure:
    return Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, and a process on descriptors of cells with some edges."""
    folder = tmp_path_factory.mktemp("models")
    network = read_bundle(EXAMPLE)
    save_bundle(
        folder / "network", network._replace(about=network.about | {"elements": ["Cl", "Na"]})
    )
    ((name, transform),) = network.model.transforms.items()
    graphs = build_graphs([crystal(edge) for edge in EDGES], network.model.graph)
    fitted = fit(np.stack([g.descriptors for g in graphs]), EDGES - 5.5, descriptor_blocks())
    head = {"kind": "gaussian_process", "labels": len(EDGES), "columns": COLUMNS}
    calibration = {"level": 0.9, "half_width": 0.1, "factor": 1.6, "method": "leave-one-out"}
    about = make_about(
        "fitted",
        elements=["Cl", "Na"],
        calibration={name: calibration | {"process_labels": 0}},
    )
    trunk = {"kind": "descriptors"}
    model = Model(trunk, {name: head}, network.model.graph, {name: transform})
    variables = {"params": {f"heads_{name}": fitted.process}, "batch_stats": {}}
    save_bundle(folder / "process", Bundle(model, variables, about))
    return folder


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    folder = tmp_path / "candidates"
    folder.mkdir()
    for edge in (4.5, 5.2, 9.0):
        crystal(edge).to(str(folder / f"{edge}.cif"))
    return folder


def suggested(*flags: str, output: Path) -> list[dict[str, str]]:
    execute(suggest.COMMAND, ["jaxmat suggest", *flags, f"--output={output}"])
    with output.open() as stream:
        return list(csv.DictReader(stream))


def test_the_order_of_models_does_not_matter(models: Path, candidates: Path) -> None:
    """The first was asked alone, whether it had a process or not."""
    places = [str(models / name) for name in ("process", "network")]
    one, other = (
        suggested(
            f"--model={','.join(order)}",
            f"--input={candidates}",
            output=candidates.parent / "next.csv",
        )
        for order in (places, places[::-1])
    )
    assert len(one) == 3
    assert [row["id"] for row in one] == [row["id"] for row in other]
    assert [row["score"] for row in one] == [row["score"] for row in other]


def test_models_without_a_process_are_refused_before_anything_is_predicted(
    models: Path, candidates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggest, "watch", lambda *_: pytest.fail("it predicts"))
    flags = f"--model={models / 'network'}", f"--input={candidates}"
    with pytest.raises(
        UserError, match="none of --model has one for poly_total.*come with .* Train a model"
    ):
        suggested(*flags, output=candidates.parent / "next.csv")


def test_labelled_crystals_that_are_not_there_are_told_before_candidates_are_predicted(
    models: Path, candidates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = f"--model={models / 'process'}", f"--input={candidates}", "--labelled=nowhere.cif"
    with pytest.raises(UserError, match="--labelled: None of 1 input can be used"):
        suggested(*flags, output=candidates.parent / "next.csv")
    assert "inputs in" not in caplog.text


def test_one_of_several_properties_has_to_be_named(candidates: Path) -> None:
    flags = "--model=all_six", f"--input={candidates}"
    with pytest.raises(UserError, match="predicts band_gap, .*: name one of them by --property"):
        suggested(*flags, output=candidates.parent / "next.csv")
    with pytest.raises(UserError, match="--property is 'gap'; the model predicts band_gap"):
        suggested(*flags, "--property=gap", output=candidates.parent / "next.csv")


def test_a_new_candidate_beside_labelled_ones_and_too_few_that_may_be_better(
    models: Path, candidates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = candidates.parent / "next.csv"
    model, new = f"--model={models / 'process'}", f"--input={candidates / '9.0.cif'}"
    labelled = f"--labelled={candidates / '4.5.cif'}"
    assert len(suggested(model, new, labelled, output=output)) == 1
    assert "asked for" not in caplog.text  # all that there is
    assert len(suggested(model, f"--input={candidates}", labelled, output=output)) == 2
    assert "10 suggestions were asked for, and there are 2" in caplog.text
    with pytest.raises(UserError, match="better than 1e\\+06: look at --best"):
        suggested(model, new, "--goal=maximum", "--best=1e6", output=output)


def test_a_prediction_beyond_all_numbers_is_left_out_with_its_descriptors(
    models: Path, candidates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptors of all were taken for those of the others."""
    flags = f"--model={models / 'process'}", f"--input={candidates}"
    whole = suggest.forecasts

    def one_beyond(*given: Any) -> Iterator[Forecast]:
        for row in whole(*given):
            yield row._replace(reason="beyond") if "4.5" in row.id else row

    with monkeypatch.context() as patch:
        patch.setattr(suggest, "forecasts", one_beyond)
        found = suggested(*flags, output=candidates.parent / "some.csv")
    (candidates / "4.5.cif").unlink()
    assert found == suggested(*flags, output=candidates.parent / "others.csv")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["gaussian_process", "gaussian_process_vectors"])
def test_a_process_on_vectors_suggests(strategy: str, tmp_path: Path) -> None:
    """It is what `choose` picks most often, and could not."""
    fields = {"path": "bundled:dielectric", "target": "poly_total", "unit": "1"}
    config = defaults.variant(defaults.finetune(**fields), "smoke")
    config.start_from, config.strategy = str(EXAMPLE), strategy
    assert run(config, tmp_path / "run") is not None
    table = read_table("bundled:dielectric")
    (tmp_path / "candidates").mkdir()
    for id in json.loads((tmp_path / "run" / "split.json").read_text())["train"][:3]:
        structure = table.structures[table.ids.index(id)]
        structure.to(str(tmp_path / "candidates" / f"{id}.cif"))
    flags = f"--model={tmp_path / 'run'}", f"--input={tmp_path / 'candidates'}"
    found = suggested(*flags, output=tmp_path / "next.csv")
    assert len(found) == 3 and all(float(row["score"]) > 0 for row in found)
