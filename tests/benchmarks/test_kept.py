"""Rows of benchmarks are kept as they come, and read as they were written."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks import few_labels, left_out
from benchmarks.kept import add_done, find_done


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
