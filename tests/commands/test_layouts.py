"""Every layout that people have, through the command: trained on, and predicted."""

from __future__ import annotations

import csv
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.commands import predict, train
from jaxmat.commands.command import execute
from jaxmat.crystals.graph import GraphSettings, build_graph
from jaxmat.data.tables import read_rows

ROWS = 12
CRYSTALS = [
    Structure(Lattice.cubic(4 + i / 20), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for i in range(ROWS)
]
LABELS = [round(0.5 + i / 10, 1) for i in range(ROWS)]
SETTINGS = GraphSettings()


def matbench(folder: Path) -> Path:
    data = [[c.as_dict(), y] for c, y in zip(CRYSTALS, LABELS, strict=True)]
    content = {"index": [*range(ROWS)], "columns": ["structure", "gap"], "data": data}
    return write(folder / "matbench.json", json.dumps(content))


def data_frame(folder: Path) -> Path:
    """As pandas writes it where nothing else is asked for, packed."""
    structures = {f"r{i}": crystal.as_dict() for i, crystal in enumerate(CRYSTALS)}
    labels = {f"r{i}": y for i, y in enumerate(LABELS)}
    data = json.dumps({"structure": structures, "gap": labels}).encode()
    (folder / "frame.json.xz").write_bytes(lzma.compress(data))
    return folder / "frame.json.xz"


def cgcnn(folder: Path) -> Path:
    for i, crystal in enumerate(CRYSTALS):
        crystal.to(str(folder / f"c{i}.cif"))
    write(folder / "atom_init.json", "{}")
    rows = "".join(f"c{i},{y}\n" for i, y in enumerate(LABELS))
    return write(folder / "id_prop.csv", rows).parent


def alignn(folder: Path) -> Path:
    for i, crystal in enumerate(CRYSTALS):
        crystal.to(str(folder / f"POSCAR-{i}.vasp"), fmt="poscar")
    rows = "".join(f"POSCAR-{i}.vasp,{y}\n" for i, y in enumerate(LABELS))
    return write(folder / "id_prop.csv", rows).parent


def jarvis(folder: Path) -> Path:
    records = [
        {
            "jid": f"JVASP-{i}",
            "gap": y,
            "mbj": "na",
            "atoms": {
                "lattice_mat": crystal.lattice.matrix.tolist(),
                "coords": crystal.cart_coords.tolist(),
                "elements": ["Na", "Cl"],
                "cartesian": True,
            },
        }
        for i, (crystal, y) in enumerate(zip(CRYSTALS, LABELS, strict=True))
    ]
    return write(folder / "jarvis.json", json.dumps(records))


def entries(folder: Path) -> Path:
    records = [
        {
            "@class": "ComputedStructureEntry",
            "entry_id": f"mp-{i}",
            "energy": -i,
            "structure": crystal.as_dict(),
            "data": {"gap": y},
        }
        for i, (crystal, y) in enumerate(zip(CRYSTALS, LABELS, strict=True))
    ]
    return write(folder / "entries.json", json.dumps({"entries": records}))


def spreadsheet(folder: Path) -> Path:
    path = folder / "sheet.csv"
    with path.open("w", encoding="utf-16", newline="") as stream:
        rows = csv.writer(stream, delimiter=";", lineterminator="\r\n")
        rows.writerow(["name", "cif", "gap"])
        for i, (crystal, y) in enumerate(zip(CRYSTALS, LABELS, strict=True)):
            rows.writerow([f"salt {i}", crystal.to(fmt="cif"), str(y).replace(".", ",")])
    return path


def frames(folder: Path) -> Path:
    text = ""
    for crystal, y in zip(CRYSTALS, LABELS, strict=True):
        cell = " ".join(map(repr, crystal.lattice.matrix.ravel().tolist()))
        text += f'2\nLattice="{cell}" pbc="T T T" gap={y}\n'
        text += "".join(f"{s.specie.symbol} {s.x} {s.y} {s.z}\n" for s in crystal)
    return write(folder / "frames.xyz", text)


def database(folder: Path) -> Path:
    ase = pytest.importorskip("ase")
    from ase.db import connect

    with connect(folder / "table.db") as rows:
        for crystal, y in zip(CRYSTALS, LABELS, strict=True):
            cell, places = crystal.lattice.matrix, crystal.cart_coords
            rows.write(ase.Atoms("NaCl", positions=places, cell=cell, pbc=True), gap=y)
    return folder / "table.db"


@pytest.mark.parametrize("name", ["table.json", "table.db"])
def test_databases_of_ase(tmp_path: Path, name: str) -> None:
    """SQLite and JSON; what ase.io.write makes is one without labels."""
    ase = pytest.importorskip("ase")
    from ase.db import connect

    with connect(tmp_path / name) as rows:
        for edge in (4, 5):
            atoms = ase.Atoms("NaCl", positions=[[0, 0, 0], [2, 2, 2]], cell=[edge] * 3, pbc=True)
            rows.write(atoms, gap=edge / 2, data={"bulk": 30.0})
    found = read_rows(tmp_path / name)
    assert (found.ids, set(found.reasons)) == (("1", "2"), {""})
    assert found.columns["gap"].tolist() == [2, 2.5]
    assert found.columns["bulk"].tolist() == [30, 30]
    assert [one.lattice[0, 0] for one in found.contents if one is not None] == [4, 5]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


LAYOUTS = [matbench, data_frame, cgcnn, alignn, jarvis, entries, spreadsheet, frames, database]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


@each_layout
def test_all_layouts_give_the_same_graphs_and_labels(layout: Callable[[Path], Path], tmp_path):
    rows = read_rows(layout(tmp_path))
    assert set(rows.reasons) == {""} and len(set(rows.ids)) == ROWS
    target = "gap" if "gap" in rows.columns else "target"
    assert rows.columns[target].tolist() == LABELS
    for found, expected in zip(rows.take(range(ROWS)).structures, CRYSTALS, strict=True):
        one, other = build_graph(found, SETTINGS), build_graph(expected, SETTINGS)
        np.testing.assert_array_equal(one.atomic_number, other.atomic_number)
        np.testing.assert_allclose(one.bond_length, other.bond_length, atol=1e-6)
        np.testing.assert_array_equal(one.bond_sender, other.bond_sender)


@pytest.mark.slow
@each_layout
def test_each_layout_is_trained_on_and_predicted(layout, tmp_path) -> None:
    """In this process: what is compiled for one layout serves for all."""
    (tmp_path / "data").mkdir()
    path, run = layout(tmp_path / "data"), tmp_path / "run"
    named = ["--target=gap", "--unit=eV", f"--workdir={run}"]
    small = ["--config=scratch:smoke", "--config.data.n_train=8"]
    small += ["--config.data.n_validation=2", "--config.data.n_test=2"]
    assert not execute(train.COMMAND, ["jaxmat train", f"--data={path}", *named, *small])
    output = tmp_path / "predictions.csv"
    given = [f"--model={run}", f"--input={path}", f"--output={output}"]
    assert not execute(predict.COMMAND, ["jaxmat predict", *given])
    with output.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == ROWS and all(row["prediction"] and not row["reason"] for row in found)
