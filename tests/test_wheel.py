"""The wheel, in an empty folder of a fresh environment that has its dependencies and nothing else.

No network is needed: the environment sees the dependencies where they are installed already.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.bundles.bundle import read_bundle
from jaxmat.commands.main import VERBS
from jaxmat.report.model_card import model_card

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TABLE = ["--data=bundled:dielectric", "--target=poly_total", "--unit=1"]
SMALL = ["--config.data.max_sites=4", "--config.training.epochs=1"]
FIT = """
import jaxmat
from jaxmat.data.tables import read_table

table = read_table("bundled:dielectric")
small = [i for i, structure in enumerate(table.structures) if len(structure) <= 4][:40]
model = jaxmat.fit(
    [table.structures[i] for i in small],
    table.column("poly_total")[small],
    unit="1",
    start_from="trained",
    config={"training.epochs": 1, "data.n_validation": 10},
)
model.save("fitted")
(row,) = jaxmat.load("fitted").predict("NaCl.cif")
assert row.low < row.prediction < row.high and row.unit == "1", row
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    for name in ("jaxmat", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source))
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def card() -> str:
    """The model card of a bundle, as it is written today."""
    model, _, about, _ = read_bundle(ROOT / "tests" / "bundles" / "v1")
    return model_card(model, about)


@pytest.fixture(scope="module")
def python(wheel: Path, card: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment, where the card's line has installed the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # What such a file names is searched, but not for files that name others: an editable
    # installation of jaxmat is not among them.
    there = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(there))
    (requirement,) = re.findall(r"^pip install (\S+)", card, re.MULTILINE)
    interpreter = folder / "bin" / "python"
    options = ["--no-deps", "--force-reinstall", f"--find-links={wheel.parent}"]
    pip(f"--python={interpreter}", "install", *options, requirement)
    return interpreter


def pip(*arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *options, *arguments[:1]]
    done = subprocess.run(
        [*command, *arguments[1:]],
        env=os.environ | {"PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(
    python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of the environment in a folder of its own; it has to go well."""
    folder = tmp_path_factory.mktemp("empty")

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python.with_name(program), *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        done.folder = folder  # type: ignore[attr-defined]
        return done

    return run


def test_the_wheel_is_small_and_says_what_it_is(wheel):
    assert wheel.stat().st_size < 8_000_000
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = HeaderParser().parsestr(archive.read(metadata).decode())
    assert {"jaxmat/configs/quickstart.py", "jaxmat/py.typed"} <= names
    files = ("model.safetensors", "config.json", "README.md")
    models = {f"{model}/{name}" for model in ("all_six", "no_dielectric") for name in files}
    assert {f"jaxmat/models_shipped/{name}" for name in (*models, "NOTICE")} <= names
    assert any(name.endswith("licenses/jaxmat/models_shipped/NOTICE") for name in names)
    assert all(name.startswith(("jaxmat/", "jaxmat_transfer-")) for name in names)
    assert about["Author"] and len(about.get_all("Project-URL")) >= 2
    assert len(about.get_all("Classifier")) > 5
    assert about["Description-Content-Type"] == "text/markdown"


def test_everything_works_in_an_empty_folder(run, python, card):
    place = run("python", "-c", "import jaxmat, jaxmat.configs; print(jaxmat.configs.__file__)")
    assert Path(place.stdout.strip()).is_relative_to(python.parents[1])
    folder = place.folder
    assert not list(folder.iterdir())
    used = set()

    def jaxmat(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        used.add(verb)
        return run("jaxmat", verb, *arguments)

    assert all(verb in run("jaxmat").stdout for verb in VERBS)
    crystal = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystal.to(str(folder / "NaCl.cif"))

    jaxmat("train", "--config=quickstart:smoke", "--workdir=quick")
    assert "from the pre-trained model" in (folder / "quick" / "comparison.md").read_text()
    jaxmat("train", "--config=scratch:smoke", *TABLE, *SMALL, "--workdir=trained")
    jaxmat("finetune", "--config=finetune:smoke", *TABLE, *SMALL, "--workdir=tuned")
    assert "all_six" in (folder / "tuned" / "config.json").read_text()
    few = ["--config.strategies=last_layer", "--config.scratch=False"]
    jaxmat("choose", "--config=choose:smoke", *few, *SMALL, "--workdir=choice")
    assert (folder / "choice" / "final" / "model" / "config.json").exists()
    jaxmat("evaluate", "--model=tuned", *TABLE, "--config.data.max_sites=3", "--workdir=tested")
    for name in ("trained", "tuned", "tested"):
        assert json.loads((folder / name / "result.json").read_text())["test_mae"] > 0
    cell = ["--config.study.sources=dielectric", "--config.study.targets=piezoelectric"]
    jaxmat("study", "--config=pairwise:smoke", *cell, "--config.study.trials=1", "--workdir=study")
    assert "report.html" in {path.name for path in (folder / "study").iterdir()}

    jaxmat("predict", "--model=tuned", "--input=NaCl.cif", "--output=predictions.csv")
    assert "NaCl.cif,poly_total," in (folder / "predictions.csv").read_text()
    jaxmat("suggest", "--model=tuned", "--input=NaCl.cif", "--output=next.csv", "--number=1")
    jaxmat("embed", "--model=tuned", "--input=NaCl.cif", "--output=vectors.npz")
    with np.load(folder / "vectors.npz") as arrays:
        assert arrays["vector"].shape[0] == 1
    assert "poly_total" in jaxmat("inspect", "tuned", "trained").stdout
    shutil.copytree(ROOT / "tests" / "bundles" / "v1", folder / "alignn")
    jaxmat("convert", "--input=alignn", "--output=weights.npz")
    jaxmat("convert", "--input=weights.npz", "--output=back", "--properties=n", "--units=1")
    tables = folder / "tables" / "splits"
    tables.mkdir(parents=True)
    for name in ("one", "two"):
        (tables / f"{name}.json").write_text('{"target_column": "label", "unit": "eV"}')
        shutil.copy(folder / "NaCl.cif", tables.parent)
        (tables.parent / f"{name}.csv").write_text("file,label\nNaCl.cif,1.5\n")
    jaxmat("unite", "--tables=tables", "--output=union.json.gz")

    run("python", "-c", FIT)
    shell, code = re.findall(r"```(?:sh|python)\n(.*?)```", card, re.DOTALL)
    command = shell.splitlines()[1].replace("FOLDER", "tuned/model").split()
    shutil.copy(folder / "NaCl.cif", folder / "structure.cif")
    run(*command)
    run("python", "-c", code.replace("FOLDER", "tuned/model"))
    assert used == set(VERBS)


def test_the_tutorial_goes_through_command_by_command(run):
    """From a table to a prediction of one's own crystal with an interval, as the page has it."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            done = run("python", "-c", block)
        else:
            for line in block.replace("\\\n", " ").splitlines():
                done = run(*shlex.split(line))
        if "predictions.csv" in block:
            (row,) = csv.DictReader((done.folder / "predictions.csv").read_text().splitlines())
            assert float(row["low"]) < float(row["prediction"]) < float(row["high"])
    assert "with probability 0.9 between" in done.stdout
    assert (done.folder / "runs" / "tuned" / "report.html").exists()
