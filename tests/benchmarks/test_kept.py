"""Rows of benchmarks are kept as they come, and read as they were written."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from benchmarks import few_labels, left_out, trunks
from benchmarks.kept import add_done, find_done
from jaxmat.errors import UserError


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    file, kind = tmp_path / "rows.csv", left_out.Row
    rows = [
        kind("process", "dc", 300, 1, "Cs Hg", 61, 4.5, 2.25, 0.9, 0.75, 1.5),
        kind("cogn", "ph", 300, 2, "Ba", 12, 100.0, 50.5, 1.0, math.nan, 2.0),
    ]
    assert find_done(file, kind) == []
    for number, row in enumerate(rows, start=1):
        add_done(file, [row])
        assert repr(find_done(file, kind)) == repr(rows[:number])  # NaN is not itself


def test_nan_may_be_written_out(tmp_path: Path) -> None:
    file, kind = tmp_path / "rows.csv", few_labels.Row
    cells = ["ph", "10", "1", "constant", "", "2.5", "0.1", *["nan"] * 9]
    file.write_text(f"{','.join(kind._fields)}\n{','.join(cells)}\n")
    (row,) = find_done(file, kind)
    assert (row.size, row.mae) == (10, 2.5) and math.isnan(row.score)


def test_cells_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    """Of an edited file, say: it ended with a traceback that named neither file nor line."""
    file, kind = tmp_path / "rows.csv", few_labels.Row
    cells = ["ph", "ten", "1", "constant", "", "2,5", "0.1", *["nan"] * 9]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([kind._fields, cells])
    with pytest.raises(UserError, match=r"rows\.csv.*\n.*line 2: size 'ten'.*\n.*mae '2,5'"):
        find_done(file, kind)
    file.write_text(f"{','.join(trunks.HEADER)}\ntest,cogn,ph,100,1,127,x,0.1,9,2\n")
    with pytest.raises(UserError, match=r"line 2: mae 'x' is not a number"):
        trunks.find_done(file)
