"""The benchmark of elements that no training crystal held: its rows are kept as they are."""

from __future__ import annotations

from pathlib import Path

from benchmarks.left_out import Row, find_done
from jaxmat.report.rows import write_rows


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Row("process", "dc", 300, 1, "Cs Hg", 61, 4.5, 2.25, 0.9, 0.75, 1.5),
        Row("cogn", "ph", 300, 2, "Ba", 12, 100.0, 50.5, 1.0, 0.5, 2.0),
    ]
    assert find_done(tmp_path / "rows.csv") == []
    write_rows(tmp_path / "rows.csv", Row._fields, rows)
    assert find_done(tmp_path / "rows.csv") == rows
