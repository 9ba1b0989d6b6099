from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import jaxmat
from benchmarks import golden
from jaxmat.bundles import bundle
from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle, load, place_of, read_bundle, save_bundle
from jaxmat.bundles.model import Model, Predictor
from jaxmat.crystals.graph import build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.seen import Seen
from jaxmat.errors import UserError
from jaxmat.report.model_card import model_card
from jaxmat.training.checkpoints import Checkpoints

TESTS = Path(__file__).parents[1]
EXAMPLE = TESTS / "bundles" / "v1"
KERNEL = "params/trunk/gcn_layers_0/src_gate/kernel"

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def example() -> Bundle:
    return read_bundle(EXAMPLE)


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "copy")
    return tmp_path / "copy"


def assert_same(one: Bundle, other: Bundle) -> None:
    assert (one.model, one.about) == (other.model, other.about)
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_an_old_bundle_still_predicts_the_same(example):
    expected = json.loads((TESTS / "bundles" / "v1.json").read_text())
    structures = golden.read_structures(TESTS / "golden")
    graphs = list(build_graphs(structures.values(), example.model.graph))
    data = Dataset(graphs, np.full((len(graphs), 1), np.nan))
    scaled = Predictor(example.model.network())(example.variables, data)[:, 0]
    found = example.model.transforms["poly_total"].to_unit(scaled)
    assert np.ptp(found) > 1
    np.testing.assert_allclose(found, [expected[str(i)] for i in structures], rtol=1e-6)


def test_a_bundle_says_what_it_knows(example):
    assert example.model.transforms["poly_total"].log
    elements = example.about["elements"]
    assert "O" in elements and "Xe" not in elements and elements == sorted(set(elements))
    assert example.about["data"]["crystals"] == {"train": 32, "validation": 16, "test": 16}
    assert len(example.about["data"]["fingerprint"]) == 64
    assert example.about["metrics"]["test_mae"] > 0
    assert example.about["calibration"]["poly_total"]["level"] == 0.9


def test_writing_what_was_read_gives_the_same_bytes(example, tmp_path):
    save_bundle(tmp_path / "once", example)
    once = read_bundle(tmp_path / "once")
    assert_same(once, example)
    save_bundle(tmp_path / "again", once)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "once"]


def test_half_precision_is_half_the_size_and_read_in_single(example, tmp_path):
    save_bundle(tmp_path / "half", example, half=True)
    half = read_bundle(tmp_path / "half")
    sizes = [(p / "model.safetensors").stat().st_size for p in (tmp_path / "half", EXAMPLE)]
    assert sizes[0] < 0.7 * sizes[1]
    leaves = zip(*map(jax.tree.leaves, (half.variables, example.variables)), strict=True)
    for a, b in leaves:
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, np.float16(b).astype(np.float32))
    save_bundle(tmp_path / "again", half)
    assert_same(read_bundle(tmp_path / "again"), half)


def test_weights_too_large_for_half_precision_are_named(example, tmp_path, recwarn):
    variables = jax.tree.map(np.array, example.variables)
    variables["params"]["trunk"]["gcn_layers_0"]["src_gate"]["kernel"] *= 1e6
    large = example._replace(variables=variables)
    with pytest.raises(UserError, match=f"not finite in half precision:\n.*{KERNEL}"):
        save_bundle(tmp_path / "half", large, half=True)
    save_bundle(tmp_path / "single", large)
    assert not recwarn.list


def test_the_crystals_that_a_model_has_seen_are_kept_and_checked(example, tmp_path):
    assert example.seen is None  # an old bundle does not know
    seen = Seen(
        ("x", "y"),
        np.arange(3, dtype=np.uint32),
        np.ones((3, 4), np.float16),
        np.eye(3, 2, dtype=np.uint8),
    )
    save_bundle(tmp_path / "new", example._replace(seen=seen))
    found = read_bundle(tmp_path / "new").seen
    assert found.properties == seen.properties
    for a, b in zip(found[1:], seen[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    for wrong in ({"crystals": 4}, {"crystals": -1}, {"crystals": 10**12}, {"properties": "xy"}):
        changed = config | {"seen": config["seen"] | wrong}
        (tmp_path / "new" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"seen"):
            read_bundle(tmp_path / "new")


@pytest.mark.parametrize("lay_out", [np.asfortranarray, jnp.asarray])
def test_however_arrays_lie_in_memory_they_come_back(lay_out, example, tmp_path):
    variables = jax.tree.map(lay_out, example.variables)
    save_bundle(tmp_path / "bundle", example._replace(variables=variables))
    assert_same(read_bundle(tmp_path / "bundle"), example)


def test_the_files_of_a_bundle_are_replaced_and_others_left_alone(example, copy):
    (copy / "notes.txt").write_text("mine")
    changed = example._replace(about=example.about | {"source": "written again"})
    save_bundle(copy, changed)
    assert_same(read_bundle(copy), changed)
    assert "written again" in (copy / "README.md").read_text()
    assert (copy / "notes.txt").read_text() == "mine"


def test_a_bundle_that_cannot_be_replaced_stays(example, copy, monkeypatch):
    """Of a disk that was full behind the weights, the old description had new weights."""
    write, files = Path.write_bytes, sorted(path.name for path in copy.iterdir())

    def full(path: Path, content: bytes) -> int:
        if path.name.endswith("config.json"):
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    larger = jax.tree.map(lambda leaf: leaf * 2, example.variables)
    with pytest.raises(UserError, match="Cannot write the bundle .*: no space left"):
        save_bundle(copy, example._replace(variables=larger))
    assert_same(read_bundle(copy), example)
    assert sorted(path.name for path in copy.iterdir()) == files


def test_a_folder_with_something_else_is_refused_and_left_alone(example, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="holds something that is not a bundle"):
        save_bundle(tmp_path, example)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(example, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write the bundle .*file/bundle"):
        save_bundle(tmp_path / "file" / "bundle", example)


def rewrite(folder: Path, change: Callable[[Arrays], Any]) -> None:
    """Changes entries of a bundle and keeps the rest, the digests included."""
    file = folder / "model.safetensors"
    arrays = load_file(file)
    with safe_open(file, framework="numpy") as entries:
        metadata = entries.metadata()
    change(arrays)
    save_file(arrays, file, metadata)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.pop(KERNEL), f"{KERNEL}: expected F32[16, 16], found nothing"),
        (lambda a: a.update(extra=a[KERNEL]), "extra: expected nothing, found F32[16, 16]"),
        (lambda a: a.update({KERNEL: a[KERNEL][:8]}), f"{KERNEL}: expected F32[16, 16], found F32"),
        (
            lambda a: a.update({KERNEL: a[KERNEL].astype(np.float64)}),
            f"{KERNEL}: expected F32[16, 16], found F64[16, 16]",
        ),
        (
            lambda a: a.update({KERNEL: a[KERNEL].astype(np.float16)}),
            f"was changed after it was written:\n  {KERNEL}",
        ),
        (
            lambda a: a.update({KERNEL: a[KERNEL] * 2}),
            f"was changed after it was written:\n  {KERNEL}",
        ),
    ],
)
def test_an_entry_that_is_not_right_is_named(change, named, copy):
    rewrite(copy, change)
    with pytest.raises(UserError) as error:
        read_bundle(copy)
    assert named in str(error.value) and str(copy) in str(error.value)


def test_many_wrong_entries_are_listed_and_counted(copy):
    rewrite(copy, lambda arrays: [arrays.pop(name) for name in sorted(arrays)[:13]])
    with pytest.raises(UserError, match=r"(?s)found nothing.*\.\.\. and 3 more"):
        read_bundle(copy)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(format=99), "newer jaxmat (format 99; this one reads up to 4)"),
        (lambda c: c["trunk"].update(width=24), "norm/var: expected F32[24], found F32[16]"),
        (lambda c: c["trunk"].update(gcn_layers=2), "gcn_layers_1/bn_edges/bias: expected F32[16]"),
        (lambda c: c["trunk"].update(depth=2), "no option depth"),
        (lambda c: c["trunk"].update(width="wide"), "width is 'wide'; it has to be a whole number"),
        (lambda c: c["trunk"].update(width=10**9), "width is 1000000000"),
        (lambda c: c["trunk"].update(alignn_layers=10**9), "alignn_layers is 1000000000"),
        (lambda c: c["trunk"].update(width=True), "width is True"),
        (lambda c: c["trunk"].update(kind=["alignn"]), "['alignn'] is unknown"),
        (lambda c: c["heads"].update(poly_total=3), "no object for 'poly_total'"),
        (lambda c: c["graph"].update(max_neighbors=10**9), "graph.max_neighbors is 1000000000"),
        (lambda c: c["graph"].update(tolerance="x"), "graph.tolerance is 'x'"),
        (lambda c: c["transforms"]["poly_total"].update(name="gap"), "another property, gap"),
        (lambda c: c["transforms"]["poly_total"].update(scale=-1.0), "do not scale"),
        (lambda c: c.update(format="1"), "its format is '1'"),
        (lambda c: c.update(elements=["Si", "Qq"]), "elements has 'Qq'"),
        (lambda c: c.update(data={"path": "x"}), "data lacks path, target"),
        (lambda c: c["calibration"]["poly_total"].update(half_width=-1.0), "half_width is -1.0"),
        (lambda c: c["calibration"].update(gap={}), "which the model does not predict"),
        (lambda c: c["metrics"].update(test_mae="good"), "metrics.test_mae is not a number"),
        (lambda c: c["graph"].update(radius=2), "radius"),
        (lambda c: c["transforms"]["poly_total"].update(unit="GPa"), "\n  config.json\n"),
        (
            lambda c: c["transforms"].update(gap=c["transforms"]["poly_total"]),
            "scaling for poly_total, gap",
        ),
        (lambda c: c.update(elements=None), "\n  config.json\n"),
        (lambda c: c.pop("trunk"), "trunk missing"),
        (lambda c: c.pop("calibration"), "calibration is missing"),
        (lambda c: c.clear(), "not the description of a model"),
    ],
)
def test_a_description_that_is_not_right_is_named(change, named, copy):
    edit(copy, change)
    with pytest.raises(UserError) as error:
        read_bundle(copy)
    assert named in str(error.value) and str(copy) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value, example, copy, tmp_path):
    """With digests that fit, as of one who has made it so."""
    variables = jax.tree.map(np.array, example.variables)
    variables["params"]["trunk"]["gcn_layers_0"]["src_gate"]["kernel"][0, 0] = value
    with pytest.raises(UserError, match=f"not written.*\n.*{KERNEL} is not finite"):
        save_bundle(tmp_path / "new", example._replace(variables=variables))
    assert not (tmp_path / "new").exists()
    spoil(copy, lambda arrays: arrays[KERNEL].__setitem__((0, 0), value))
    with pytest.raises(UserError, match=f"(?s)no prediction can be made with.*{KERNEL}"):
        read_bundle(copy)


def test_a_negative_variance_is_refused(copy):
    name = "batch_stats/trunk/atom_embedding/norm/var"
    spoil(copy, lambda arrays: arrays[name].__setitem__(0, -1))
    with pytest.raises(UserError, match=f"{name} is negative"):
        read_bundle(copy)


def spoil(folder: Path, change: Callable[[Arrays], Any]) -> None:
    """Changes entries of a bundle and their digests."""
    file = folder / "model.safetensors"
    arrays = load_file(file)
    change(arrays)
    with safe_open(file, framework="numpy") as entries:
        digests = json.loads(entries.metadata()["sha256"])
    digests |= {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in arrays.items()}
    save_file(arrays, file, {"sha256": json.dumps(digests)})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_no_regular_file_is_refused_at_once(name, copy):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(UserError, match=f"{name} cannot be read: it is a pipe|no checkpoint"):
        load(copy)


def test_a_folder_with_weights_of_another_program_is_left_alone(example, tmp_path):
    save_file({"w": np.zeros(2)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds something that is not a bundle"):
        save_bundle(tmp_path, example)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_folder_called_unfinished_is_left_alone(example, tmp_path):
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished" / "thesis.tex").write_text("mine")
    save_bundle(tmp_path / "new", example)
    assert (tmp_path / "new.unfinished" / "thesis.tex").read_text() == "mine"


def test_layout_and_line_ends_of_the_description_do_not_matter(copy, example):
    edit(copy, lambda config: None)
    assert_same(read_bundle(copy), example)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_truncated_file_is_named(name, keep, copy):
    content = (copy / name).read_bytes().rstrip()
    (copy / name).write_bytes(content[:keep])
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        read_bundle(copy)


def test_digests_that_are_nested_too_deeply_are_refused(copy):
    file = copy / "model.safetensors"
    save_file(load_file(file), file, {"sha256": "[" * 100_000})
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        read_bundle(copy)


def test_a_missing_description_is_named(copy):
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=30)
def test_no_changed_byte_goes_unseen(tmp_path_factory, name, position, byte, example):
    """It may be without meaning, such as white space; then the bundle is the same."""
    folder = tmp_path_factory.mktemp("changed") / "bundle"
    shutil.copytree(EXAMPLE, folder)
    content = bytearray((folder / name).read_bytes())
    content[int(position * len(content))] = byte
    (folder / name).write_bytes(content)
    try:
        found = read_bundle(folder)
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert_same(found, example)


def save_best(run, description, example, step):
    checkpoints = Checkpoints(run, description)
    checkpoints.keep_best(example.variables, step, 0.5)
    checkpoints.finish()


def test_a_model_is_found_wherever_it_is_kept(example, copy, tmp_path):
    run = tmp_path / "run"
    save_best(run, example.model.describe(), example, step=3)
    for place in (run, run / "checkpoints", run / "checkpoints" / "best" / "3"):
        found = load(place)
        assert_same(found, example._replace(about=make_about(f"trained in {place}")))
        assert found.about["elements"] is None and found.about["data"] is None
    copy.rename(run / bundle.FOLDER)
    assert_same(load(run), example)
    assert_same(load(run / bundle.FOLDER), example)


def test_a_choice_stands_for_what_it_has_chosen(example, copy, tmp_path):
    choice = tmp_path / "choice"
    (choice / "final").mkdir(parents=True)
    copy.rename(choice / "final" / bundle.FOLDER)
    assert_same(load(choice), example)
    assert place_of(choice) == choice / "final" and place_of("all_six").name == "all_six"


def test_of_a_run_of_several_models_they_are_named(example, copy, tmp_path):
    """It said that there is no checkpoint, or that the checkpoint is of another network."""
    for name in ("seed_0", "seed_1"):
        (tmp_path / "run" / name).mkdir(parents=True)
        shutil.copytree(copy, tmp_path / "run" / name / bundle.FOLDER)
    with pytest.raises(
        UserError, match="no model of its own, but 2 below it(?s:.*)seed_0\\n.*seed_1"
    ):
        load(tmp_path / "run")


@pytest.mark.parametrize("place", [None, 3, b"all_six", ["all_six", "no_dielectric"]])
def test_what_is_no_path_is_told_what_a_model_is(place):
    for read in (load, jaxmat.load):
        with pytest.raises(UserError, match=r"is no model: give the path.*\(all_six, no_diel"):
            read(place)


def test_where_there_is_no_model_the_message_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*model\.safetensors"):
        load(tmp_path)


def test_a_checkpoint_of_a_newer_version_is_named(example, tmp_path):
    description = example.model.describe() | {"format": 99}
    save_best(tmp_path, description, example, step=1)
    with pytest.raises(UserError, match=rf"{tmp_path}.*newer jaxmat"):
        load(tmp_path)


def test_an_unknown_description_is_refused():
    with pytest.raises(UserError, match="not the description of a model"):
        Model.from_description({"format": 1})


def test_a_width_beyond_all_numbers_does_not_keep_a_model_from_being_saved(example, recwarn):
    """The card of a training on logarithms that went wrong ended it with a traceback."""
    wide = {"poly_total": {"level": 0.9, "half_width": 1e4}}
    card = model_card(example.model, example.about | {"calibration": wide})
    assert "a factor of inf" in card and not recwarn.list


def test_the_card_is_of_the_form_of_the_hub(copy, example):
    _, header, text = (copy / "README.md").read_text().split("---\n", 2)
    lines = dict(line.split(": ", 1) for line in header.splitlines())
    assert lines["library_name"] == "jaxmat" and lines["pipeline_tag"] == "graph-ml"
    for told in ("poly_total", "a factor of", *example.about["elements"], "complete_shells"):
        assert told in text
    assert example.about["data"]["fingerprint"] in text
    assert "cannot tell the polymorphs" in model_card(example.model, example.about)
