"""Embeddings: the very vectors that the heads see, in a file that needs no pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.bundles.bundle import Bundle, read_bundle
from jaxmat.bundles.embed import embed
from jaxmat.bundles.predict import predict
from jaxmat.commands.command import execute
from jaxmat.commands.embed import COMMAND
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError

EXAMPLE = Path(__file__).parents[1] / "bundles" / "v1"
XENON = Structure(Lattice.cubic(5), ["Xe"], [[0, 0, 0]])


@pytest.fixture(scope="module")
def example() -> Bundle:
    return read_bundle(EXAMPLE)


@pytest.fixture(scope="module")
def known(example) -> list[Structure]:
    """Crystals of elements that the model has seen."""
    elements = set(example.about["elements"])
    structures = read_table("bundled:dielectric").structures
    return [s for s in structures if len(s) < 6 and set(s.symbol_set) <= elements][:12]


def test_the_head_makes_predictions_of_the_vectors(example, known):
    arrays = embed(EXAMPLE, known)
    assert arrays["vector"].shape == (len(known), example.model.trunk["width"])
    assert arrays["vector"].dtype == np.float32
    head = example.variables["params"]["heads_poly_total"]["out"]
    scaled = arrays["vector"] @ head["kernel"] + head["bias"]
    expected = [row.prediction for row in predict(EXAMPLE, known)]
    found = example.model.transforms["poly_total"].to_unit(scaled[:, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected) > 0.1


def test_what_is_left_out_is_named(known):
    arrays = embed(EXAMPLE, [known[0], XENON, known[1]])
    assert arrays["id"].tolist() == ["0", "2"] and arrays["left_out"].tolist() == ["1"]
    assert "never seen Xe" in arrays["reason"][0]
    np.testing.assert_allclose(arrays["vector"], embed(EXAMPLE, known[:2])["vector"], rtol=1e-4)


def test_no_input_gives_no_vector(example):
    assert embed(EXAMPLE, [])["vector"].shape == (0, example.model.trunk["width"])


def test_the_program_writes_a_file_that_needs_no_pickle(tmp_path, known, run_jaxmat):
    known[0].to(str(tmp_path / "a.cif"))
    XENON.to(str(tmp_path / "b.cif"))
    output = tmp_path / "vectors.data"
    done = run_jaxmat("embed", f"--model={EXAMPLE}", f"--input={tmp_path}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert f"vectors of 1 crystal: {output}" in done.stderr
    with np.load(output, allow_pickle=False) as arrays:
        assert arrays["id"].tolist() == [str(tmp_path / "a.cif")]
        assert arrays["left_out"].tolist() == [str(tmp_path / "b.cif")]
        expected = embed(EXAMPLE, tmp_path / "a.cif")["vector"]
        np.testing.assert_allclose(arrays["vector"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("input", "output", "message"),
    [
        ("nowhere.cif", "vectors.npz", "None of 1 input can be used"),
        ("bundled:dielectric", "no/folder/vectors.npz", "there is no folder"),
        ("bundled:dielectric", "vectors.csv", r"vectors are written as \*\.npz"),
    ],
)
def test_mistakes_leave_no_file(tmp_path, input, output, message):
    given = [f"--model={EXAMPLE}", f"--input={input}", f"--output={tmp_path / output}"]
    with pytest.raises(UserError, match=message):
        execute(COMMAND, ["embed", *given])
    assert not (tmp_path / output).exists()
