"""The benchmark of long folders and tables: its tables hold the crystals of its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reading import write_files
from benchmarks.streams import children, write_tables
from jaxmat.data.reading import read


@pytest.mark.slow  # reading the table that the crystals are taken from
@pytest.mark.filterwarnings("ignore")  # of pymatgen, as it writes CIFs
def test_tables_hold_the_crystals_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cifs").mkdir()
    write_files(tmp_path / "cifs", 3)
    write_tables(tmp_path, tmp_path / "cifs")
    expected = [entry.structure for entry in read(tmp_path / "cifs")]
    assert len(expected) == 3
    for name in ("table.csv", "table.jsonl", "table.xyz"):
        found = list(read(tmp_path / name))
        assert [float(entry.labels["gap"]) for entry in found] == [1.5] * 3
        for entry, crystal in zip(found, expected, strict=True):
            assert entry.structure.composition == crystal.composition
            np.testing.assert_allclose(entry.structure.volume, crystal.volume, rtol=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_processes_that_were_started_are_found() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        assert process.pid in children(os.getpid())
