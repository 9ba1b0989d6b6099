"""Bundles, checkpoints, state dicts and stores of graphs."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pymatgen.core import Lattice, Structure
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from benchmarks.damage import DAMAGES
from benchmarks.hostile.torch_files import archives_of_torch
from benchmarks.hostile.trial import Trial, Wrong, mutated_files, mutations, strange_places
from jaxmat.bundles.bundle import Bundle, load, read_bundle, save_bundle
from jaxmat.convert.files import write_state_dict
from jaxmat.convert.models import torch_to_bundle
from jaxmat.convert.state_dict import to_state_dict
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.contents import Contents
from jaxmat.data.graphs import stored_graphs
from jaxmat.data.store import store_path
from jaxmat.data.targets import TargetTransform
from jaxmat.training.checkpoints import Checkpoints

EXAMPLE = Path(__file__).parents[2] / "tests" / "bundles" / "v1"
_KERNEL = "params/trunk/gcn_layers_0/src_gate/kernel"
_PROPERTY = "poly_total"

Change = Callable[[dict[str, Any]], Any]

# Descriptions that are no model, whoever has made them.
_DESCRIPTIONS: dict[str, Change] = {
    "width 10^9": lambda c: c["trunk"].update(width=10**9),
    "width 8000": lambda c: c["trunk"].update(width=8000),
    "width -1": lambda c: c["trunk"].update(width=-1),
    "width true": lambda c: c["trunk"].update(width=True),
    "width text": lambda c: c["trunk"].update(width="16"),
    "10^9 layers": lambda c: c["trunk"].update(alignn_layers=10**9),
    "bins of a list": lambda c: c["trunk"].update(bond_bins=[80]),
    "another trunk": lambda c: c["trunk"].update(kind="os.system"),
    "a trunk that is a list": lambda c: c.update(trunk=[1]),
    "no trunk": lambda c: c.pop("trunk"),
    "an option of flax": lambda c: c["trunk"].update(name="x"),
    "another head": lambda c: c["heads"][_PROPERTY].update(kind="forest"),
    "a head that is text": lambda c: c["heads"].update({_PROPERTY: "linear"}),
    "a head of another name": lambda c: c.update(heads={"../x": {"kind": "linear"}}),
    "no heads": lambda c: c.update(heads={}),
    "no transforms": lambda c: c.update(transforms={}),
    "scale 0": lambda c: c["transforms"][_PROPERTY].update(scale=0.0),
    "scale -1": lambda c: c["transforms"][_PROPERTY].update(scale=-1.0),
    "scale text": lambda c: c["transforms"][_PROPERTY].update(scale="1"),
    "offset null": lambda c: c["transforms"][_PROPERTY].update(offset=None),
    "a transform of another property": lambda c: c["transforms"][_PROPERTY].update(name="x"),
    "unit blank": lambda c: c["transforms"][_PROPERTY].update(unit=" "),
    "10^9 neighbours": lambda c: c["graph"].update(max_neighbors=10**9),
    "-1 neighbours": lambda c: c["graph"].update(max_neighbors=-1),
    "tolerance text": lambda c: c["graph"].update(tolerance="0.1"),
    "cutoff 10^6": lambda c: c["graph"].update(max_cutoff=1e6),
    "another rule": lambda c: c["graph"].update(neighbor_rule="x"),
    "graph an unknown field": lambda c: c["graph"].update(x=1),
    "format 99": lambda c: c.update(format=99),
    "format text": lambda c: c.update(format="1"),
    "nothing": lambda c: c.clear(),
}
_ABOUTS: dict[str, Change] = {
    "element Qq": lambda c: c.update(elements=["Qq"]),
    "elements a number": lambda c: c.update(elements=3),
    "half width -1": lambda c: c["calibration"][_PROPERTY].update(half_width=-1.0),
    "half width text": lambda c: c["calibration"][_PROPERTY].update(half_width="1"),
    "level 2": lambda c: c["calibration"][_PROPERTY].update(level=2.0),
    "calibration of another": lambda c: c["calibration"].update(
        x={"level": 0.9, "half_width": 1.0}
    ),
    "metrics a list": lambda c: c.update(metrics=[1]),
    "a metric of text": lambda c: c["metrics"].update(test_mae="low"),
    "source a number": lambda c: c.update(source=3),
    "data text": lambda c: c.update(data="x"),
    "torch -1": lambda c: c.update(torch={"x": -1}),
}


@cache
def _bundle() -> Bundle:
    return read_bundle(EXAMPLE)


def _expect_same(found: Bundle, what: str) -> None:
    mine = _bundle()
    leaves = zip(jax.tree.leaves(mine.variables), jax.tree.leaves(found.variables), strict=True)
    same = found.model == mine.model and all(np.array_equal(a, b) for a, b in leaves)
    if not same:
        raise Wrong(f"{what} was read as another model")


def _copy(folder: Path) -> Path:
    shutil.copytree(EXAMPLE, folder / "bundle")
    return folder / "bundle"


def _load(folder: Path) -> None:
    _expect_same(load(folder), "a changed bundle")


def bundles() -> Iterator[Trial]:
    """Yields trials of bundles."""
    for name, number in (("model.safetensors", 25), ("config.json", 20)):
        content = (EXAMPLE / name).read_bytes()
        for i, mutated in enumerate(mutations(content, number)):

            def mutate(folder: Path, name: str = name, mutated: bytes = mutated) -> None:
                copy = _copy(folder)
                (copy / name).write_bytes(mutated)
                _load(copy)

            yield Trial(f"{name}, mutation {i}", mutate)

        def replaced(path: Path, name: str = name) -> None:
            copy = _copy(path.parent)
            (copy / name).unlink()
            if path.is_symlink() or path.exists():
                path.rename(copy / name)
            _load(copy)

        yield from strange_places(name, replaced)
    for name, change in (_DESCRIPTIONS | _ABOUTS).items():
        yield Trial(f"config.json: {name}", _edited(change))
    for name, value in {"nan": np.nan, "inf": np.inf}.items():
        yield Trial(f"weights of {name}", _spoiled(functools.partial(_fill, value=value)))
    yield Trial("a weight less", _spoiled(lambda arrays: arrays.pop(_KERNEL)))
    yield Trial(
        "weights of float64", _spoiled(lambda a: a.update({_KERNEL: a[_KERNEL].astype("f8")}))
    )
    yield Trial("weights of nothing", _spoiled(lambda arrays: arrays.clear()))


def _fill(arrays: dict[str, np.ndarray], value: float) -> None:
    arrays[_KERNEL].fill(value)


def _edited(change: Change) -> Callable[[Path], None]:
    """Returns what changes a description and its digest, as one who means it."""

    def attempt(folder: Path) -> None:
        copy = _copy(folder)
        config = json.loads((copy / "config.json").read_text())
        change(config)
        (copy / "config.json").write_text(json.dumps(config))
        _sign(copy, config)
        load(copy)
        raise Wrong("it was read")

    return attempt


def _sign(folder: Path, config: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    arrays = load_file(file)
    with safe_open(file, framework="numpy") as entries:
        digests = json.loads(entries.metadata()["sha256"])
    digests |= {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in arrays.items()}
    digests["config.json"] = hashlib.sha256(json.dumps(config).encode()).hexdigest()
    save_file(arrays, file, {"sha256": json.dumps(digests)})


def _spoiled(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        copy = _copy(folder)
        arrays = load_file(copy / "model.safetensors")
        with safe_open(copy / "model.safetensors", framework="numpy") as entries:
            metadata = entries.metadata()
        change(arrays)
        save_file(arrays, copy / "model.safetensors", metadata)
        _sign(copy, json.loads((copy / "config.json").read_text()))
        load(copy)
        raise Wrong("it was read")

    return attempt


def _checkpoint(folder: Path) -> Path:
    """Writes a checkpoint of the example; returns its folder."""
    bundle = _bundle()
    checkpoints = Checkpoints(folder / "run", bundle.model.describe())
    (folder / "run").mkdir()
    checkpoints.keep_best(bundle.variables, 7, 0.5)
    checkpoints.finish()
    return checkpoints.folder / "best" / "7"


def checkpoints() -> Iterator[Trial]:
    """Yields trials of checkpoints."""

    def use(folder: Path) -> None:
        _expect_same(load(folder / "run"), "a damaged checkpoint")

    for name, damage in DAMAGES.items():

        def damaged(folder: Path, damage: Callable[[Path], object] = damage) -> None:
            damage(_checkpoint(folder))
            use(folder)

        yield Trial(name, damaged)
    for i in range(16):

        def flipped(folder: Path, i: int = i) -> None:
            place = _checkpoint(folder)
            files = sorted(path for path in place.rglob("*") if path.is_file())
            content = bytearray((file := files[i % len(files)]).read_bytes())
            content[len(content) * (i + 1) // 17] ^= 1 << i % 8
            file.write_bytes(content)
            use(folder)

        yield Trial(f"bit {i} flipped", flipped)
    for file in ("about.json", "files.json"):

        def replaced(path: Path, file: str = file) -> None:
            place = _checkpoint(path.parent)
            (place / file).unlink()
            if path.is_symlink() or path.exists():
                path.rename(place / file)
            use(path.parent)

        yield from strange_places(file, replaced)
    for name, change in _DESCRIPTIONS.items():
        yield Trial(f"description: {name}", _described(functools.partial(_describe, change=change)))
    abouts: dict[str, Change] = {
        "format 99": lambda a: a.update(format=99),
        "format text": lambda a: a.update(format="1"),
        "no step": lambda a: a.pop("step"),
        "step -1": lambda a: a.update(step=-1),
        "metric text": lambda a: a.update(metric="low"),
        "no description": lambda a: a.pop("description"),
        "a description of text": lambda a: a.update(description="x"),
    }
    for name, change in abouts.items():
        yield Trial(f"about: {name}", _described(change))


def _describe(about: dict[str, Any], change: Change) -> None:
    change(about["description"])


def _described(change: Change) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        place = _checkpoint(folder)
        about = json.loads((place / "about.json").read_text())
        change(about)
        (place / "about.json").write_text(json.dumps(about))
        digests = json.loads((place / "files.json").read_text())
        digests["about.json"] = hashlib.sha256((place / "about.json").read_bytes()).hexdigest()
        (place / "files.json").write_text(json.dumps(digests))
        load(folder / "run")
        raise Wrong("it was read")

    return attempt


def _arrays() -> dict[str, np.ndarray]:
    bundle = _bundle()
    return to_state_dict(bundle.model.heads, bundle.variables, {})


def _convert(file: Path) -> None:
    """Converts a state dict.

    Raises:
        Wrong: what came of it is not finite.
    """
    transform = TargetTransform(_PROPERTY, "1", log=False, offset=0.0, scale=1.0)
    bundle = torch_to_bundle(file, file.parent / "converted", [transform])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(bundle.variables)):
        raise Wrong("weights that are not finite")


def _convert_same(file: Path) -> None:
    """Converts an archive, which has check sums: nothing else than the example may come of it."""
    _convert(file)
    _expect_same_weights(read_bundle(file.parent / "converted"))


def _expect_same_weights(found: Bundle) -> None:
    mine = jax.tree.leaves(_bundle().variables)
    theirs = jax.tree.leaves(found.variables)
    if len(mine) != len(theirs) or not all(map(np.array_equal, mine, theirs)):
        raise Wrong("a changed archive was read as other weights")


def state_dicts() -> Iterator[Trial]:
    """Yields trials of state dicts."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **_arrays())
    yield from mutated_files("w.npz", stream.getvalue(), 25, _convert_same)
    data = save(_arrays())
    (length,) = struct.unpack("<Q", data[:8])
    for i, header in enumerate(mutations(data[: 8 + length], 20)):
        yield _bytes(
            f"w.safetensors header, mutation {i}", "w.safetensors", header + data[8 + length :]
        )
    for name in ("w.npz", "w.safetensors"):
        yield from strange_places(name, _convert)
    first = "gcn_layers.0.src_gate.weight"
    changes: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
        "an entry less": lambda a: a.pop(first),
        "an entry more": lambda a: a.update(x=np.ones(3, "f4")),
        "another shape": lambda a: a.update({first: a[first][:3]}),
        "float64": lambda a: a.update({first: a[first].astype("f8")}),
        "no dimensions": lambda a: a.update({first: np.ones((), "f4")}),
        "text": lambda a: a.update({first: np.array(["a"])}),
        "nan": lambda a: a[first].fill(np.nan),
        "inf": lambda a: a[first].fill(np.inf),
        "nothing": lambda a: a.clear(),
        "100 layers": lambda a: a.update(
            {f"gcn_layers.{i}.src_gate.weight": a[first] for i in range(100)}
        ),
        "a negative variance": lambda a: a["atom_embedding.layer.1.running_var"].fill(-1),
        "-1 batches": lambda a: a.update(
            {"atom_embedding.layer.1.num_batches_tracked": np.array(-1)}
        ),
        "centers moved": lambda a: a.update(
            {"edge_embedding.0.centers": a["edge_embedding.0.centers"] + np.float32(1)}
        ),
    }
    for name, change in changes.items():
        for suffix in ("npz", "safetensors"):
            if (name, suffix) != ("text", "safetensors"):
                yield Trial(f"w.{suffix}: {name}", _changed(f"w.{suffix}", change))
    yield Trial("w.npz: a bomb", _bomb)
    yield _bytes("w.npz: a shape of 10^13", "w.npz", _archive({"w.npy": _header((10**13,))}))
    yield _bytes(
        "w.npz: objects", "w.npz", _archive({"w.npy": _header((1,), "|O") + b"cos\nsystem"})
    )
    yield _bytes("w.npz: another file", "w.npz", _archive({"../../x": b"x"}))
    yield _bytes("w.safetensors: a header of 2^60", "w.safetensors", struct.pack("<Q", 2**60))
    yield _bytes("w.pt: a pickle", "w.pt", b"cos\nsystem\n(S'true'\ntR.")
    yield _bytes(
        "w.pt: an archive", "w.pt", _archive({"archive/data.pkl": b"cos\nsystem\n(S'x'\ntR."})
    )
    for name, content in archives_of_torch().items():
        yield _bytes(f"w.pt: {name}", "w.pt", content)
    yield _bytes("w.h5", "w.h5", b"x")


def _bytes(name: str, file: str, content: bytes) -> Trial:
    def attempt(folder: Path) -> None:
        (folder / file).write_bytes(content)
        _convert(folder / file)

    return Trial(name, attempt)


def _changed(file: str, change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        arrays = {name: np.array(array) for name, array in _arrays().items()}
        change(arrays)
        write_state_dict(folder / file, arrays)
        _convert(folder / file)
        raise Wrong("it was read")

    return attempt


def _archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    about = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()


def _bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("w.npy", "w", force_zip64=True) as stream:
            for _ in range(600):
                stream.write(bytes(2**20))
    _convert(folder / "w.npz")


def stores() -> Iterator[Trial]:
    """Yields trials of stores: whatever has become of one, graphs are right."""
    structures = [
        Structure(Lattice.cubic(a), ["Na", "Cl"], np.array([[0, 0, 0], [0.5] * 3]))
        for a in (5.5, 5.6, 5.7)
    ]
    settings = GraphSettings()

    def use(folder: Path) -> None:
        graphs = stored_graphs(["a", "b", "c"], Contents.of(structures), settings, folder)
        for found, expected in zip(graphs, build_graphs(structures, settings), strict=True):
            if not all(map(np.array_equal, found, expected)):
                raise Wrong("a graph of another content")

    for file, number in (("graphs.bin", 20), ("index.bin", 25), ("settings.json", 5)):
        for i in range(number):

            def damaged(folder: Path, file: str = file, i: int = i, number: int = number) -> None:
                use(folder)
                path = store_path(folder, settings) / file
                path.write_bytes(mutations(path.read_bytes(), number)[i])
                use(folder)

            yield Trial(f"{file}, mutation {i}", damaged)

        def replaced(path: Path, file: str = file) -> None:
            folder = path.parent / "stores"
            use(folder)
            place = store_path(folder, settings) / file
            place.unlink()
            if path.is_symlink() or path.exists():
                path.rename(place)
            use(folder)

        yield from strange_places(file, replaced)

    def unwritable(folder: Path) -> None:
        (folder / "file").touch()
        use(folder / "file")

    yield Trial("a place that cannot be written", unwritable)


def save_somewhere(folder: Path) -> None:
    """Writes the example's bundle to a folder."""
    try:
        save_bundle(folder, _bundle())
    except OSError as error:
        raise Wrong(f"the system's own error: {error}") from error
