"""The package as a whole: its version, its files, what may import what, and quiet imports."""

from __future__ import annotations

import ast
import configparser
import functools
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import pytest

import jaxmat

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jaxmat").rglob("*.py"))
}

# What each part may not import, itself or below. Arrays flow one way: from crystals to experiments.
JAX = ("jax", "flax", "optax", "orbax", "jraph")
UPPER = ("jaxmat.transfer", "jaxmat.training", "jaxmat.convert", "jaxmat.report")
FORBIDDEN = {
    # Unpickling runs code; the others are large and not needed; pyplot keeps global state.
    "jaxmat": (
        *("cloudpickle", "dill", "joblib", "marshal", "shelve"),
        *("tensorflow", "dgl", "clu", "pandas", "matplotlib.pyplot"),
    ),
    "jaxmat.errors": ("jaxmat",),
    "jaxmat.crystals": (*JAX, "jaxmat.batch", "jaxmat.data", "jaxmat.models", *UPPER),
    "jaxmat.batch": ("jaxmat.data", "jaxmat.models", *UPPER),
    "jaxmat.data": ("flax", "optax", "orbax", "jaxmat.models", *UPPER),
    "jaxmat.models": ("optax", "orbax", "pymatgen", "jaxmat.data", *UPPER),
    **{part: ("pymatgen", "jaxmat.data") for part in UPPER if part != "jaxmat.convert"},
    "jaxmat.convert": ("pymatgen", "jaxmat.transfer", "jaxmat.training", "jaxmat.report"),
}


@functools.cache
def syntax_nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, inside functions too."""
    for node in syntax_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def importers(package: str) -> set[str]:
    return {
        module
        for module, path in MODULES.items()
        if any(is_in(name, package) for name in imports(path))
    }


def data_files() -> list[Path]:
    """The files in the package that are no modules, relative to it; caches are left out."""
    files = (path.relative_to(ROOT / "jaxmat") for path in (ROOT / "jaxmat").rglob("*.*"))
    return sorted(
        file
        for file in files
        if file.suffix not in (".py", ".pyc")
        and not any(part.startswith(".") for part in file.parts)
    )


def test_version_is_the_one_to_cite() -> None:
    (version,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert jaxmat.__version__ == version


def test_only_one_module_imports_jraph() -> None:
    assert importers("jraph") == {"jaxmat.batch"}


def test_only_the_reader_of_its_files_imports_torch() -> None:
    """And of pickle it knows no more than the error by which torch refuses a file."""
    assert importers("torch") == importers("pickle") == {"jaxmat.convert.files"}
    names = imports(MODULES["jaxmat.convert.files"])
    assert [name for name in names if is_in(name, "pickle")] == ["pickle.UnpicklingError"]


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_one_way(part: str) -> None:
    members = {module for module in MODULES if is_in(module, part)}
    assert members
    wrong = {name: members & importers(name) for name in FORBIDDEN[part]}
    assert not {name: modules for name, modules in wrong.items() if modules}


def test_modules_import_each_other_one_way() -> None:
    """Also within a part: what a module imports knows nothing of it."""

    def home(name: str) -> str:
        return name if name in MODULES else name.rpartition(".")[0]

    graph = {
        module: {home(name) for name in imports(path) if home(name) in MODULES}
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_experiments_import_experiments() -> None:
    """But for commands, which nothing imports."""
    others = {
        name for name in importers("jaxmat.experiments") if not is_in(name, "jaxmat.experiments")
    }
    assert others and all(is_in(name, "jaxmat.commands") for name in others)
    assert all(is_in(name, "jaxmat.commands") for name in importers("jaxmat.commands"))


def test_only_its_own_modules_speak_of_the_parameters_of_a_trunk() -> None:
    """All others speak of groups; `layers` has what ALIGNN is built from."""
    names = re.compile(r"alignn_layers|gcn_layers|edge_update|angle_embedding|bn_(nodes|edges)")
    speakers = {module for module, path in MODULES.items() if names.search(path.read_text())}
    own = {"jaxmat.models.alignn", "jaxmat.models.layers"}
    assert "jaxmat.models.alignn" in speakers
    assert all(m in own or is_in(m, "jaxmat.convert") for m in speakers), speakers


def test_nothing_is_unpickled_by_numpy() -> None:
    calls = [
        f"{module}, line {node.lineno}"
        for module, path in MODULES.items()
        for node in syntax_nodes(path)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert not calls


def test_data_files_are_installed_and_found() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [
        f"{package.replace('.', '/')}/{pattern}"
        for package, globs in config["options.package_data"].items()
        for pattern in globs.split()
    ]
    names = [f"jaxmat/{file.as_posix()}" for file in data_files()]
    assert "jaxmat/crystals/atom_features.txt" in names
    assert "jaxmat/data/bundled/dielectric.json.gz" in names
    assert not [name for name in names if not any(fnmatch(name, glob) for glob in patterns)]
    for file in data_files():
        assert resources.files("jaxmat").joinpath(*file.parts).is_file()


def test_every_folder_of_modules_is_a_package_and_installed() -> None:
    folders = {path.parent for path in MODULES.values()}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(config["options"]["packages"].split()) == packages | {"jaxmat.configs"}


def test_imports_change_nothing() -> None:
    """Importing all modules warns of nothing, prints nothing and leaves JAX to be set up."""
    script = f"""
import importlib, os, jax
config, environment = dict(jax.config.values), dict(os.environ)
for module in {list(MODULES)}:
    importlib.import_module(module)
assert dict(jax.config.values) == config
assert dict(os.environ) == environment
# JAX refuses this as soon as some module has computed anything with it.
jax.config.update("jax_num_cpu_devices", 2)
assert jax.local_device_count("cpu") == 2
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        # JAX refuses two ways to ask for devices.
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
