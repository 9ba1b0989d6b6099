"""PyTorch ALIGNN → bundle → PyTorch ALIGNN, on the small golden models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import golden
from jaxmat.bundles.bundle import load, save_bundle
from jaxmat.bundles.model import Predictor
from jaxmat.commands.command import execute
from jaxmat.commands.convert import COMMAND, make_transforms
from jaxmat.convert.files import read_state_dict, write_state_dict
from jaxmat.convert.models import bundle_to_torch, torch_to_bundle
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.errors import UserError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden"
PROPERTIES = {"single": ["gap"], "mpt": ["gap", "modulus", "density"]}
UNITS = {"single": ["eV"], "mpt": ["eV", "GPa", "g/cm^3"]}


@pytest.fixture(params=PROPERTIES)
def name(request) -> str:
    return request.param


def convert(name: str, file: Path, folder: Path) -> None:
    torch_to_bundle(file, folder, make_transforms(PROPERTIES[name], UNITS[name], [], []))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_a_converted_model_predicts_as_before_and_goes_back_byte_for_byte(name, suffix, tmp_path):
    if suffix == ".pt":
        pytest.importorskip("torch", reason="*.pt files need torch, the extra 'convert'")
    file, folder, back = tmp_path / f"model{suffix}", tmp_path / "bundle", tmp_path / f"b{suffix}"
    arrays = golden.read_arrays(FOLDER / f"{name}_weights.npz")
    write_state_dict(file, arrays)
    convert(name, file, folder)
    model, variables, about, _ = load(folder)
    assert about["elements"] is None and file.name in about["source"]
    assert [transform.unit for transform in model.transforms.values()] == UNITS[name]

    assert model.graph.neighbor_rule == "reference"
    assert model.graph.canonical == (name == "single")
    structures = golden.read_structures(FOLDER)
    graphs = list(build_graphs(structures.values(), model.graph))
    target = np.full((len(graphs), len(PROPERTIES[name])), np.nan)
    found = Predictor(model.network())(variables, Dataset(graphs, target))
    results = golden.read_arrays(FOLDER / f"{name}.npz")
    rows = list(structures)
    mask = results.get("mask", np.ones_like(results["eval"]))[rows]
    assert golden.difference(found * mask, results["eval"][rows]) < 1e-5

    bundle_to_torch(folder, back)
    read = read_state_dict(back)
    assert read.keys() == arrays.keys()
    for entry, array in arrays.items():
        assert read[entry].dtype == array.dtype and read[entry].shape == array.shape, entry
        assert read[entry].tobytes() == array.tobytes(), entry


def test_what_comes_after_fine_tuning_a_multi_property_model_has_its_graphs(tmp_path):
    arrays = golden.read_arrays(FOLDER / "mpt_weights.npz")
    tuned = {entry: x for entry, x in arrays.items() if ".1." not in entry[:13]}
    one_head = {
        entry: x
        for entry, x in tuned.items()
        if not entry.startswith(("conv_to_fc.2", "fc_hp.2", "fc_out.1", "fc_out.2", "fc_hp.1"))
    }
    write_state_dict(tmp_path / "tuned.npz", one_head)
    convert("single", tmp_path / "tuned.npz", tmp_path / "bundle")
    model = load(tmp_path / "bundle").model
    assert model.heads["gap"]["kind"] == "mlp" and not model.graph.canonical


def test_a_model_of_ours_can_be_given_to_torch_with_a_warning(tmp_path, caplog):
    bundle = load(ROOT / "tests" / "bundles" / "v1")
    save_bundle(tmp_path / "bundle", bundle)
    bundle_to_torch(tmp_path / "bundle", tmp_path / "model.npz")
    assert "complete_shells, which the PyTorch ALIGNN does not have" in caplog.text
    assert read_state_dict(tmp_path / "model.npz")["fc.weight"].shape == (1, 16)


def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path):
    arrays = golden.read_arrays(FOLDER / "single_weights.npz")
    del arrays["fc.weight"]
    write_state_dict(tmp_path / "model.npz", arrays)
    with pytest.raises(UserError, match=r"(?s)model\.npz: .*fc\.weight: expected float32"):
        convert("single", tmp_path / "model.npz", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_scaled_targets_get_their_unit_back():
    scaled, plain = make_transforms(["gap", "density"], ["eV", "1"], ["-2.5", ""], ["7.5", ""])
    np.testing.assert_allclose(scaled.to_unit(np.array([-1.0, 0.0, 1.0])), [-2.5, 2.5, 7.5])
    np.testing.assert_allclose(plain.to_unit(np.array([-1.0, 0.3])), [-1.0, 0.3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], [], [], []), "Name each head.*--properties=a,b"),
        ((["a", "b"], ["eV"], [], []), "--units has 1 value, --properties 2 names"),
        ((["a", "b"], ["eV", "1"], ["0"], ["1", "2"]), "--targets_min has 1 value, --properties 2"),
        (([" "], ["eV"], [], []), "Name each head"),
        ((["a", ""], ["eV", "1"], [], []), "Name each head"),
        ((["a"], [" "], [], []), "property a has no unit"),
        ((["a"], ["eV"], ["0"], []), "a: give both"),
        ((["a"], ["eV"], ["low"], ["3"]), "a: .*low"),
        ((["a"], ["eV"], ["3"], ["3"]), "a: --targets_min=3 has to be less than --targets_max=3"),
        ((["a"], ["eV"], ["5"], ["1"]), "a: --targets_min=5 has to be less than --targets_max=1"),
    ],
)
def test_heads_that_are_not_described_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        make_transforms(*given)


def test_the_program_converts_there_and_back(tmp_path, run_jaxmat):
    file, folder = FOLDER / "single_weights.npz", tmp_path / "bundle"
    done = run_jaxmat(
        "convert",
        f"--input={file}", f"--output={folder}", "--properties=gap", "--units=eV",
        "--targets_min=0", "--targets_max=12",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load(folder).model.transforms["gap"].scale == 6.0
    done = run_jaxmat("convert", f"--input={folder}", f"--output={tmp_path / 'back.npz'}")
    assert done.returncode == 0, done.stderr
    assert "gap = 6 + 6 * output, in eV" in done.stderr
    assert read_state_dict(tmp_path / "back.npz").keys() == golden.read_arrays(file).keys()


def test_the_program_refuses_names_for_a_bundle(tmp_path):
    given = [f"--input={tmp_path}", f"--output={tmp_path / 'x.npz'}", "--properties=gap"]
    with pytest.raises(UserError, match="A bundle has names"):
        execute(COMMAND, ["convert", *given])
