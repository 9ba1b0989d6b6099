"""Databases of ASE: what was calculated is a label, and one odd row harms no other."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from jaxmat.data.layouts import ase_rows
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.tables import read_rows
from jaxmat.errors import UserError

ase = pytest.importorskip("ase")
pytest.importorskip("ase.db")
pytest.importorskip("ase.io")
each_kind = pytest.mark.parametrize("name", ["t.db", "t.json"])


def salt(edge: float = 4.0, **results: object) -> ase.Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    places = [[0, 0, 0], [edge / 2] * 3]
    atoms = ase.Atoms("NaCl", positions=places, cell=[edge] * 3, pbc=True)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@each_kind
def test_single_numbers_that_were_calculated_are_labels(tmp_path: Path, name: str) -> None:
    results = {"energy": -1.0, "free_energy": -1.5, "magmom": 2.0}
    with ase.db.connect(tmp_path / name) as rows:
        rows.write(salt(forces=np.zeros((2, 3)), stress=np.zeros(6), **results))
        data = {"count": 3, "energy": -9.0, "many": np.zeros(2)}
        rows.write(salt(magmom=1.0), data=data, gap=0.5)
    found = read_rows(tmp_path / name, Wanted())
    assert set(found.reasons) == {""}
    columns = {key: list(values) for key, values in found.columns.items()}
    np.testing.assert_array_equal(columns.pop("count"), [np.nan, 3])
    np.testing.assert_array_equal(columns.pop("free_energy"), [-1.5, np.nan])
    np.testing.assert_array_equal(columns.pop("gap"), [np.nan, 0.5])
    assert columns == {"energy": [-1, -9], "magmom": [2, 1]}


@each_kind
def test_one_odd_row_harms_no_other(tmp_path: Path, name: str) -> None:
    with ase.db.connect(tmp_path / name) as rows:
        rows.write(salt())
        for number in (0, 119 if name == "t.json" else 0):  # SQLite takes none beyond 118
            odd = salt()
            odd.numbers[0] = number
            rows.write(odd)
        rows.write(salt(), data={"occupancy": {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1}}})
        rows.write(salt(), data={"occupancy": 0.5})
    found = read_rows(tmp_path / name)
    kinds = [reason.partition(":")[0] for reason in found.reasons]
    assert kinds == ["", "element", "element", "disorder", ""]
    assert found.columns["occupancy"][4] == 0.5


@each_kind
def test_a_packed_one_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    ase.db.connect(tmp_path / name).write(salt())
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    with pytest.raises(UserError, match="packed database of ASE: unpack it"):
        read_rows(path)


def test_what_is_advised_where_ase_is_missing_keeps_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ase.db.connect("t.db") as rows:
        rows.write(salt(4, energy=-1.0), gap=0.5)
        rows.write(salt(5, energy=-2.0), gap=1.5)
    lines = ase_rows._AS_FRAMES.format(path="t.db").splitlines()
    exec("\n".join(line.removeprefix("  ") for line in lines), {"ase": ase})
    found = read_rows("table.xyz")
    assert found.columns["gap"].tolist() == [0.5, 1.5]
    assert found.columns["energy"].tolist() == [-1, -2]
