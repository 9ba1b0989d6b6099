"""Structure files, tables and splits."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Lattice, Structure

from benchmarks.hostile.texts import more_texts
from benchmarks.hostile.trial import Trial, Wrong, mutated_files, strange_places
from jaxmat.data.reading import read
from jaxmat.data.splits import read_split
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.prepare import read_labelled

_CRYSTAL = Structure(Lattice.cubic(5.6402), ["Na", "Cl"], np.array([[0, 0, 0], [0.5] * 3]))
CIF = _CRYSTAL.to(fmt="cif")
_POSCAR = _CRYSTAL.to(fmt="poscar")
_XYZ = '2\nLattice="5.64 0 0 0 5.64 0 0 0 5.64" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
_XYZ += "Na 0 0 0\nCl 2.82 2.82 2.82\n"


def _read(path: Path, formulas: set[str] | None = None) -> None:
    """Reads every crystal of a file and checks what is known of it.

    Args:
        path: of the file.
        formulas: gets those of the crystals.

    Raises:
        UserError: all are refused.
        Wrong: a crystal is none, or not what the file says itself.
    """
    reasons = []
    for entry in read(path, workers=1):
        if entry.content is None:
            reasons.append(entry.reason)
        else:
            _check(entry.structure, path)
            if formulas is not None:
                formulas.add(entry.structure.composition.reduced_formula)
    if reasons:
        raise UserError("\n".join(reasons[:5]))


def _check(structure: Structure, path: Path) -> None:
    numbers = np.concatenate([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
    if not (len(structure) and np.isfinite(numbers).all() and structure.volume > 0):
        raise Wrong("a crystal without atoms, volume or finite numbers")
    if path.suffix != ".cif" or not path.is_file():
        return
    text = path.read_bytes().decode("latin-1")
    sums = re.findall(r"^_chemical_formula_sum\s+'([A-Za-z0-9. ]+)'\s*$", text, re.MULTILINE)
    if len(sums) == 1 and text.count("data_") == 1:
        try:
            said = Composition(sums[0]).reduced_composition
        except Exception:
            return
        if not said.almost_equals(structure.composition.reduced_composition):
            raise Wrong(f"read as {structure.composition}, but the file says {said}")


def files() -> Iterator[Trial]:
    """Yields trials of structure files."""
    valid = {
        "a.cif": CIF.encode(),
        "POSCAR": _POSCAR.encode(),
        "a.json": json.dumps(_CRYSTAL.as_dict()).encode(),
        "a.xyz": _XYZ.encode(),
    }
    for name, content in valid.items():
        yield from mutated_files(name, content, 30, _read)
        yield from strange_places(name, _read)
    for name, text in _texts().items():
        yield _written(name, text)
    for name, (text, formula) in more_texts(CIF, _POSCAR, _XYZ, _CRYSTAL.as_dict()).items():
        yield _written(name, text, formula)


def _written(name: str, content: str | bytes, formula: str | None = None) -> Trial:
    """Returns a trial of a file.

    Args:
        name: of the file; what follows a blank only tells it apart.
        content: of the file.
        formula: that has to be read, "" where it has to be refused; None: either is right.
    """
    file = re.sub(r" .*", "", name)

    def attempt(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / file).write_bytes(data)
        found: set[str] = set()
        try:
            _read(folder / file, found)
        finally:
            if formula is not None and found != ({formula} if formula else set()):
                there = ", ".join(found) or "nothing"
                raise Wrong(f"read as {there}, not as {formula or 'nothing'}")

    return Trial(name, attempt)


def _texts() -> dict[str, str | bytes]:
    """Returns files by name; what follows a blank only tells them apart."""
    positions = "\n".join("0 0 0" for _ in range(3))
    return {
        "a.cif empty": "",
        "a.cif one long line": "data_x\n_cell_length_a " + "1" * 10**6,
        "a.cif quotes without end": "data_x\n_a 'x\n" * 20_000,
        "a.cif blocks": "data_x\n_a 1\n" * 20_000,
        "a.cif semicolons": "data_x\n" + "_a\n;\n" * 100_000,
        "a.cif NUL": b"\0" * 10**6,
        "a.cif UTF-16": CIF.encode("utf-16"),
        "a.cif with a wrong formula": CIF.replace("'Na1 Cl1'", "'Na1 Cl1 H2'"),
        "a.cif of element Qq": CIF.replace("Na", "Qq"),
        "a.cif with a dot for a coordinate": CIF.replace("0.50000000", "."),
        "a.cif of no volume": CIF.replace("_cell_angle_alpha   90", "_cell_angle_alpha   0"),
        "POSCAR of 4e8 atoms": f"x\n1\n5 0 0\n0 5 0\n0 0 5\nNa\n400000000\nDirect\n{positions}\n",
        "POSCAR of negative counts": f"x\n1\n5 0 0\n0 5 0\n0 0 5\nNa Cl\n-1 2\nDirect\n{positions}",
        "POSCAR of scale 0": _POSCAR.replace("1.0", "0.0", 1),
        "POSCAR of scale nan": _POSCAR.replace("1.0", "nan", 1),
        "POSCAR of flat cells": "x\n1\n5 0 0\n5 0 0\n0 0 5\nNa\n1\nDirect\n0 0 0\n",
        "a.xyz of 1e9 atoms": "1000000000\nx\nNa 0 0 0\n",
        "a.xyz of -1 atoms": "-1\nx\n",
        "a.xyz one long line": '1\nLattice="' + "1 " * 10**6 + '"\nNa 0 0 0\n',
        "a.xyz of nan": _XYZ.replace("2.82", "nan", 1),
        "a.xyz without a lattice": "1\nx\nNa 0 0 0\n",
        "a.json deep": "[" * 10**5,
        "a.json of a class": '{"@module": "os", "@class": "system", "command": "true"}',
        "a.json NaN": json.dumps(_CRYSTAL.as_dict()).replace("5.6402", "NaN"),
        "a.json of another class": '{"@class": "Lattice", "matrix": [[1, 0, 0]]}',
        "a.json of a number": "1e400",
        "a.json.gz that is none": b"not gzip",
        "a.json.gz cut": gzip.compress(json.dumps(table(["1"] * 3)).encode())[:-9],
        "a.json.gz of braces": gzip.compress(b"[" + b"{}," * 10**6 + b"{}]"),
    }


def table(labels: list[Any], **changes: Any) -> dict[str, Any]:
    """Returns a table of sodium chloride with these labels."""
    structures = [_CRYSTAL.as_dict() for _ in labels]
    return {
        "index": [f"id-{i}" for i in range(len(labels))],
        "columns": ["structure", "gap"],
        "data": [list(row) for row in zip(structures, labels, strict=True)],
    } | changes


def _use_table(path: Path) -> None:
    """Reads the labelled rows of a table and compares labels with what stands in the file.

    Raises:
        UserError: it is refused.
        Wrong: a label is not the number of its row.
    """
    config = defaults.data(path=str(path), target="gap", unit="eV")
    labelled = read_labelled(config)
    cells = _cells(path)
    for id, label in zip(labelled.table.ids, labelled.labels[:, 0].tolist(), strict=True):
        if not math.isfinite(label):
            raise Wrong(f"row {id} has the label {label}")
        if id in cells and not _same(cells[id], label):
            raise Wrong(f"row {id} has the label {label}, but the file {cells[id]!r}")


def _cells(path: Path) -> dict[str, Any]:
    """Returns the labels of a file by id as they stand there, as far as there are any."""
    try:
        data = path.read_bytes()
        if path.suffix == ".csv":
            rows = list(csv.DictReader(io.StringIO(data.decode())))
            return {str(row["file"]): row["gap"] for row in rows if None not in row}
        content = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        at = content["columns"].index("gap")
        return {str(i): row[at] for i, row in zip(content["index"], content["data"], strict=True)}
    except Exception:
        return {}


def _same(cell: Any, label: float) -> bool:
    if isinstance(cell, bool) or (isinstance(cell, str) and re.search(r"[^\d.eE+\- \t]", cell)):
        return False
    try:
        return float(cell) == label
    except (TypeError, ValueError):
        return False


def tables() -> Iterator[Trial]:
    """Yields trials of tables."""
    valid = json.dumps(table([1.5, 2.5, 3.5, 4.5])).encode()
    yield from mutated_files("t.json", valid, 30, _use_table)
    yield from mutated_files("t.json.gz", gzip.compress(valid, mtime=0), 15, _use_table)

    def with_files(path: Path) -> None:
        for name in "ab":
            (path.parent / f"{name}.cif").write_text(CIF)
        _use_table(path)

    yield from mutated_files("t.csv", b"file,gap\na.cif,1.5\nb.cif,2.5\n", 30, with_files)
    for name in ("t.json", "t.csv", "t.json.gz"):
        yield from strange_places(name, _use_table)
    labels = ["1_0", "１２", True, "true", "0x10", [1], {"a": 1}, "=1+1", "1,5", 1e400, "1e400"]
    for label in labels:
        yield _table_of(f"label {label!r}", table([1.5, label, 2.5]))
    odd: dict[str, Any] = {
        "no rows": table([]),
        "two rows of one id": table([1.5, 2.5], index=["a", "a"]),
        "an index that is too short": table([1.5, 2.5], index=["a"]),
        "columns of one name": table([1.5], columns=["structure", "structure"]),
        "no column structure": table([1.5], columns=["crystal", "gap"]),
        "columns that are numbers": table([1.5], columns=[1, 2]),
        "rows that are no lists": table([1.5], data=[3]),
        "structures that are text": table([1.5], data=[["os.system('true')", 1.5]]),
        "ids of control characters": table([1.5, 2.5], index=["\x1b[31m", "a\nb"]),
        "ids that are numbers": table([1.5, 2.5], index=[1, 2]),
        "ids that are lists": table([1.5, 2.5], index=[[1], [2]]),
        "a list": [1, 2, 3],
        "nothing": None,
    }
    for name, content in odd.items():
        yield _table_of(name, content)
    wide = ",".join(["file", "gap", *(f"c{i}" for i in range(20_000))]) + "\n" + "a.cif,1\n" * 2000
    for name, text in {
        "t.csv wide with short rows": wide,
        "t.csv long cell": "file,gap\na.cif," + "1" * 10**6 + "\n",
        "t.csv empty": "",
        "t.csv of a header": "file,gap\n",
        "t.csv without a header": "a.cif,1\nb.cif,2\n",
        "t.csv of NUL": "file,gap\na\0.cif,1\n",
        "t.csv out of the folder": "file,gap\n../../../../etc/passwd,1\n/dev/zero,2\n",
    }.items():
        yield _text_of(name, text, with_files)


def _table_of(name: str, content: Any) -> Trial:
    return _text_of(f"t.json {name}", json.dumps(content), _use_table)


def _text_of(name: str, text: str, use: Callable[[Path], None]) -> Trial:
    def attempt(folder: Path) -> None:
        path = folder / name.partition(" ")[0]
        path.write_text(text, encoding="utf-8")
        use(path)

    return Trial(name, attempt)


def splits() -> Iterator[Trial]:
    """Yields trials of split files."""
    ids = [f"id-{i}" for i in range(6)]
    parts = {"train": ids[:3], "validation": ids[3:4], "test": ids[4:]}

    def use(path: Path) -> None:
        split = read_split(path, ids)
        rows = np.concatenate(list(split.values()))
        if len(set(rows.tolist())) < len(rows):
            raise Wrong("a row is in two parts")
        said = json.loads(path.read_bytes().decode("utf-8-sig"))
        for part, rows in split.items():
            if [ids[row] for row in rows] != said[part]:
                raise Wrong(f"{part} is not what the file says")

    yield from mutated_files("split.json", json.dumps(parts).encode(), 25, use)
    yield from strange_places("split.json", use)
    odd: dict[str, Any] = {
        "no part test": {"train": ids, "validation": []},
        "another part": parts | {"holdout": []},
        "an id twice": parts | {"test": [*ids[4:], ids[0]]},
        "an unknown id": parts | {"test": ["\x1b]0;x\x07"]},
        "ids that are objects": parts | {"test": [{"a": 1}]},
        "parts that are text": parts | {"test": "id-5"},
        "a number": 3,
    }
    for name, content in odd.items():
        yield _text_of(f"split.json {name}", json.dumps(content), use)
    yield _text_of("split.json deep", "[" * 10**5, use)
