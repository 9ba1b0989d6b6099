"""Prediction: a row for every input, the same number however it comes, and what it is worth."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from pymatgen.core import Element, Lattice, Structure

from jaxmat.bundles import inference
from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle, read_bundle, save_bundle
from jaxmat.bundles.model import Model, Predictor, initial_variables
from jaxmat.bundles.predict import combine, forecasts, load_members, make_inference, predict
from jaxmat.commands.command import execute
from jaxmat.commands.predict import COMMAND
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.reading import read
from jaxmat.data.tables import read_table
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError

PLAIN = TargetTransform("gap", "eV", log=False, offset=1.0, scale=2.0)
LOG = TargetTransform("gap", "eV", log=True, offset=1.0, scale=2.0)


def crystal(edge: float = 5.6, element: str = "Na") -> Structure:
    return Structure(Lattice.cubic(edge), [element, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def example() -> Bundle:
    """The logarithm of a property, calibrated; it knows the elements before xenon."""
    bundle = read_bundle(Path(__file__).parents[1] / "bundles" / "v1")
    elements = [Element.from_Z(number).symbol for number in range(1, 54)]
    return bundle._replace(about={**bundle.about, "elements": elements})


@pytest.fixture(scope="module")
def model(tmp_path_factory, example) -> Path:
    return save(tmp_path_factory.mktemp("models") / "example", example)


@pytest.fixture(scope="module")
def some() -> list[Structure]:
    structures = read_table("bundled:dielectric").structures
    return [s for s in structures if len(s) <= 4 and max(s.atomic_numbers) < 54][:30]


def save(folder: Path, bundle: Bundle, factor: float = 1.0) -> Path:
    """Saves a bundle with all weights multiplied by a factor."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf * factor, leaf.dtype), bundle.variables)
    save_bundle(folder, bundle._replace(variables=variables))
    return folder


def test_every_way_to_bring_a_crystal_gives_the_same(model, tmp_path):
    structure = crystal()
    for name, format in (("a.cif", "cif"), ("POSCAR", "poscar"), ("a.json", "json")):
        structure.to(str(tmp_path / name), fmt=format)
    (tmp_path / "a.xyz").write_text(
        '2\nLattice="5.6 0 0 0 5.6 0 0 0 5.6"\nNa 0 0 0\nCl 2.8 2.8 2.8\n'
    )
    (tmp_path / "table.csv").write_text("file\na.cif\n")
    rows = predict(model, [structure, tmp_path, tmp_path / "table.csv"])
    names = ["POSCAR", "a.cif", "a.json", "a.xyz"]
    assert [row.id for row in rows] == ["0", *(str(tmp_path / name) for name in names), "a.cif"]
    assert {(row.property, row.unit, row.reason) for row in rows} == {("poly_total", "1", "")}
    np.testing.assert_allclose([row.prediction for row in rows], rows[0].prediction, rtol=1e-5)
    assert rows[0].prediction > 0 and rows[0].uncertainty > 0


def test_it_is_what_the_network_says(model, example, some):
    graphs = list(build_graphs(some, example.model.graph))
    data = Dataset(graphs, np.full((len(graphs), 1), np.nan))
    scaled = Predictor(example.model.network())(example.variables, data)[:, 0]
    expected = example.model.transforms["poly_total"].to_unit(scaled)
    found = [row.prediction for row in predict(model, some)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(found) > 0.1


def test_what_cannot_be_predicted_says_why_and_harms_no_other(model, tmp_path, some):
    overlap = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    disordered = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    bad = [overlap, disordered, crystal(element="Xe"), tmp_path / "nowhere.cif"]
    rows = predict(model, [some[0], *bad, some[1]])
    assert [bool(row.reason) for row in rows] == [False, True, True, True, True, False]
    for row, reason in zip(
        rows[1:5], ("apart", "a site is shared", "seen Xe", "no file"), strict=True
    ):
        assert reason in row.reason and math.isnan(row.prediction) and math.isnan(row.uncertainty)
        assert (row.property, row.unit) == ("poly_total", "1")
    alone = predict(model, some[:2])
    found = [rows[0].prediction, rows[5].prediction]
    np.testing.assert_allclose(found, [row.prediction for row in alone], rtol=1e-5)


def test_elements_do_not_matter_where_they_are_not_known(tmp_path, example):
    unknown = example._replace(about={**example.about, "elements": None})
    (row,) = predict(save(tmp_path / "unknown", unknown), crystal(element="Xe"))
    assert not row.reason and math.isfinite(row.prediction)


def test_weights_that_are_no_numbers_give_no_prediction(tmp_path, example):
    (row,) = predict(save(tmp_path / "broken", example, 1e30), crystal())
    assert math.isnan(row.prediction) and "not a finite number" in row.reason


def test_chunks_change_nothing_and_share_programs(model, monkeypatch, some):
    whole = predict(model, some)
    monkeypatch.setattr(inference, "CHUNK", 4)
    members = load_members([model])
    computation = make_inference(members)
    rows = list(forecasts(members, computation(read(some))))
    assert [row.id for row in rows] == [row.id for row in whole]
    np.testing.assert_allclose(
        [row.prediction for row in rows], [row.prediction for row in whole], rtol=1e-4
    )
    compiling = computation.compile_seconds
    assert compiling > 0
    list(computation(read(some)))
    assert computation.compile_seconds == compiling


def test_a_run_without_a_terminal_says_how_far_it_is(model, monkeypatch, caplog, some):
    monkeypatch.setattr(inference, "CHUNK", 20)
    monkeypatch.setattr(inference, "_SECONDS_BETWEEN_LOG_LINES", 0)
    crystals = [crystal(element="Xe"), *some]
    with caplog.at_level("INFO"):
        list(inference.watch(make_inference(load_members([model])), read(crystals)))
    assert "20 inputs, 65 %" in caplog.text
    assert "1 input cannot be used:\n  0: the model has never seen Xe" in caplog.text
    assert "structures/s" in caplog.text


def test_no_input_gives_no_row(model):
    assert predict(model, []) == []


def test_one_model_gives_its_interval():
    scaled = np.array([[0.0, 1.0, np.nan]])
    prediction, low, high = combine(scaled, [PLAIN], [0.25])
    np.testing.assert_allclose(prediction, [1, 3, np.nan])
    np.testing.assert_allclose([low, high], [[0.5, 2.5, np.nan], [1.5, 3.5, np.nan]])
    prediction, low, high = combine(scaled, [LOG], [0.25])
    np.testing.assert_allclose(prediction, np.exp([1, 3, np.nan]))
    np.testing.assert_allclose([low, high], np.exp([[0.5, 2.5, np.nan], [1.5, 3.5, np.nan]]))
    assert np.isnan(combine(scaled, [PLAIN], [np.nan])[1:]).all()


def test_several_models_add_their_disagreement():
    def combined(*half_widths):
        prediction, low, high = combine(scaled, [PLAIN, other], half_widths)
        np.testing.assert_allclose(prediction, [2, 3])
        np.testing.assert_allclose((low + high) / 2, prediction)
        return (high - low) / 2

    other = replace(PLAIN, offset=0.0, scale=1.0)
    scaled = np.array([[0.0, 1.0], [3.0, 3.0]])  # 1 and 3 eV, 3 and 3 eV
    spread = combined(np.nan, np.nan)
    np.testing.assert_allclose(spread, [1.6448536 * math.sqrt(2), 0], atol=1e-6)
    np.testing.assert_allclose(combined(0.25, 1.5), np.hypot(spread, (0.5 + 1.5) / 2))
    np.testing.assert_allclose(combined(np.nan, 1.5), np.hypot(spread, 1.5))


def test_an_ensemble_is_the_mean_of_its_members(model, tmp_path, example):
    paths = [model, save(tmp_path / "other", example, 1.1)]
    (together,) = predict(paths, crystal())
    first, second = (predict(path, crystal())[0] for path in paths)
    assert together.prediction == pytest.approx((first.prediction + second.prediction) / 2)
    # The models predict the logarithm.
    calibrated = math.log(first.high / first.low * second.high / second.low) / 4
    spread = 1.6448536 * abs(math.log(first.prediction / second.prediction)) / math.sqrt(2)
    half = math.hypot(calibrated, spread)
    assert together.low == pytest.approx(together.prediction * math.exp(-half))
    assert together.high == pytest.approx(together.prediction * math.exp(half))
    assert together.uncertainty == pytest.approx((together.high - together.low) / 2)


def with_transform(bundle: Bundle, **changes) -> Bundle:
    transform = replace(bundle.model.transforms["poly_total"], **changes)
    return bundle._replace(model=replace(bundle.model, transforms={"poly_total": transform}))


def test_models_that_do_not_go_together_are_refused(model, tmp_path, example):
    save(tmp_path / "unit", with_transform(example, unit="eV"))
    graph = replace(example.model.graph, max_neighbors=8)
    other_graph = example._replace(model=replace(example.model, graph=graph))
    save(tmp_path / "graph", other_graph)
    with pytest.raises(UserError, match="(?s)unit: unit of poly_total eV, not 1.*max_neighbors 8"):
        load_members([model, tmp_path / "unit", tmp_path / "graph"])
    with pytest.raises(UserError, match="at least one model"):
        predict([], crystal())


def test_every_head_has_its_row(tmp_path, example, some):
    """The order of the heads of the members does not matter."""
    transforms = {"gap": PLAIN, "hull": replace(PLAIN, name="hull", unit="1", offset=0.0)}
    heads = {name: {"kind": "linear"} for name in transforms}
    model = Model(example.model.trunk, heads, GraphSettings(), transforms)
    data = Dataset(list(build_graphs(some[:1], model.graph)), np.full((1, 2), np.nan))
    variables = jax.tree.map(np.asarray, initial_variables(model.network(), data, 0))
    about = make_about("made at random", elements=["Cl", "Na"])
    save_bundle(tmp_path / "one", Bundle(model, variables, about))
    swapped = replace(model, heads=dict(reversed(heads.items())))
    save_bundle(tmp_path / "other", Bundle(swapped, variables, about))

    rows = predict(tmp_path / "one", [crystal(), crystal(element="K")])
    names = [("0", "gap", "eV"), ("0", "hull", "1"), ("1", "gap", "eV"), ("1", "hull", "1")]
    assert [(row.id, row.property, row.unit) for row in rows] == names
    assert [bool(row.reason) for row in rows] == [False, False, True, True]
    assert all(math.isnan(row.uncertainty) for row in rows)
    gap, hull = (row.prediction for row in rows[:2])
    assert abs(gap - hull) > 1e-3
    together = predict([tmp_path / "other", tmp_path / "one"], crystal())
    assert [row.property for row in together] == ["hull", "gap"]
    assert [row.prediction for row in together] == pytest.approx([hull, gap], rel=1e-4)
    assert [row.uncertainty for row in together] == pytest.approx([0, 0], abs=1e-4)


def test_the_program_writes_a_row_for_every_input(model, tmp_path, run_jaxmat):
    crystal().to(str(tmp_path / "Zürich, 1.cif"))
    (tmp_path / "bad.cif").write_text("rubbish")
    output = tmp_path / "predictions.csv"
    done = run_jaxmat(
        "predict", f"--model={model}", f"--input={tmp_path},nowhere.cif", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    with output.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = ["id", "property", "prediction", "unit", "uncertainty", "low", "high", "reason"]
    columns.append("remark")
    assert list(rows[0]) == columns
    names = [str(tmp_path / "Zürich, 1.cif"), str(tmp_path / "bad.cif"), "nowhere.cif"]
    assert [row["id"] for row in rows] == names
    expected = predict(model, tmp_path / "Zürich, 1.cif")[0]
    assert float(rows[0]["prediction"]) == pytest.approx(expected.prediction, rel=1e-5)
    assert float(rows[0]["uncertainty"]) == pytest.approx(expected.uncertainty, rel=1e-5)
    assert rows[0]["reason"] == "" and rows[2]["prediction"] == ""
    assert "2 inputs cannot be used" in done.stderr and "structures/s" in done.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--model": "nowhere"}, "nowhere"),
        ({"--input": "nowhere.cif"}, "None of 1 input can be used"),
        ({"--input": ""}, "--input names nothing to read"),
        ({"--read_seconds": "nan"}, "--read_seconds is nan; it has to be a number from 0.1"),
        ({"--output": "no/folder/x.csv"}, "Cannot write --output=no/folder/x.csv"),
        ({"--inputs": "x"}, "Unknown command line flag 'inputs'"),
        ({"x.cif": None}, "Unexpected arguments: x.cif"),
    ],
)
def test_mistakes_are_refused(model, tmp_path, changed, message):
    crystal().to(str(tmp_path / "a.cif"))
    given = {
        "--model": model,
        "--input": tmp_path / "a.cif",
        "--output": tmp_path / "x.csv",
    } | changed
    arguments = [name if value is None else f"{name}={value}" for name, value in given.items()]
    with pytest.raises(UserError, match=message):
        execute(COMMAND, ["predict", *arguments])


def test_a_prediction_that_was_stopped_goes_on(model, tmp_path, monkeypatch, some):
    """It ends with the same file, in which no crystal is predicted twice."""
    monkeypatch.setattr(inference, "CHUNK", 4)
    frames = []
    for crystal_ in some[:14]:
        cell = " ".join(map(str, crystal_.lattice.matrix.ravel()))
        sites = "".join(f"{s.specie.symbol} {s.x} {s.y} {s.z}\n" for s in crystal_)
        frames.append(f'{len(crystal_)}\nLattice="{cell}"\n{sites}')
    (tmp_path / "a.xyz").write_text("".join(frames) + "2\n\nH 0 0 0\n")
    argv = ["jaxmat predict", f"--model={model}", f"--input={tmp_path / 'a.xyz'}"]
    execute(COMMAND, [*argv, f"--output={tmp_path / 'whole.csv'}"])
    whole = (tmp_path / "whole.csv").read_bytes()
    assert whole.count(b"\n") == 16

    real, calls = inference.Inference._begin, []

    def stopped(self, inputs):
        calls.append(len(inputs))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, inputs)

    monkeypatch.setattr(inference.Inference, "_begin", stopped)
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        execute(COMMAND, [*argv, f"--output={output}"])
    assert not output.exists()
    (partial,) = tmp_path.glob(".out.csv.*.partial")
    with partial.open("ab") as stream:
        stream.write(b"half a ro")  # as a kill may leave it
    done = partial.read_bytes().count(b"\n") - 1
    assert done in (4, 8)
    calls.clear()
    calls += [0] * 10
    execute(COMMAND, [*argv, f"--output={output}", "--resume"])
    assert sum(calls) == 15 - done
    assert output.read_bytes() == whole
    assert not list(tmp_path.glob(".out.csv.*"))


def test_a_prediction_of_other_inputs_does_not_go_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK", 1)
    paths = [tmp_path / name for name in ("a.cif", "b.cif", "c.cif")]
    for path in paths:
        crystal().to(str(path))
    argv = ["jaxmat predict", f"--model={model}", f"--output={tmp_path / 'out.csv'}", "--resume"]
    begin = inference.Inference._begin

    def stopped(self, inputs):
        if inputs[0].id.endswith("c.cif"):
            raise KeyboardInterrupt
        return begin(self, inputs)

    monkeypatch.setattr(inference.Inference, "_begin", stopped)
    with pytest.raises(KeyboardInterrupt):
        execute(COMMAND, [*argv, f"--input={','.join(map(str, paths))}"])
    with pytest.raises(UserError, match="found .*b.cif where .*a.cif was before"):
        execute(COMMAND, [*argv, f"--input={paths[1]}"])
