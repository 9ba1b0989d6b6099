"""The file of predictions: what is written is read again, and other files are refused."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmat.errors import UserError
from jaxmat.report.predictions import Prediction, read_predictions, write_predictions

HEADER = "id,split,target,prediction,unit,low,high\n"
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))
rows = st.builds(
    Prediction,
    *(texts, texts, st.floats(), st.floats(), texts, st.floats(), st.floats()),
)


@settings(deadline=None)
@given(st.lists(rows))
def test_round_trip_is_exact(predictions: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write_predictions(path, predictions)
        # repr takes NaN for equal to NaN, and 0.0 apart from -0.0.
        assert repr(read_predictions(path)) == repr(predictions)


def test_missing_values_are_blank(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    rows = [
        Prediction("mp-1", "test", math.nan, 0.5, "eV"),
        Prediction("mp-2", "test", 1.0, math.nan, "eV"),
    ]
    write_predictions(path, rows)
    assert path.read_text() == HEADER + "mp-1,test,,0.5,eV,,\nmp-2,test,1.0,,eV,,\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lacks the columns id, split"),
        ("id,target,prediction\na,1,2\n", "lacks the columns split, unit"),
        (HEADER + "a,test,1,2,eV,,\nb,test,one,2,eV,,\n", "line 3: target 'one' is not a number"),
        (HEADER + "a,test,1,1_0,eV,,\n", "line 2: prediction '1_0' is not a number"),
        (HEADER + "a,test,1,2\n", "line 2 "),
        (HEADER + "a,test,x,2,eV,,\n" * 12, "and 2 more"),
        (HEADER + "a,test,1,2,eV,0,1,2\n", "line 2 "),
        (b"id\xff", "lacks the columns id, split"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=f"(?s)predictions.csv.*{message}"):
        read_predictions(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.csv"):
        read_predictions(tmp_path / "nowhere.csv")


def test_files_without_intervals_are_read(tmp_path: Path) -> None:
    """As they were written before there were any."""
    path = tmp_path / "predictions.csv"
    path.write_text("id,split,target,prediction,unit\na,test,1,2,eV\n")
    (row,) = read_predictions(path)
    assert row[:5] == ("a", "test", 1.0, 2.0, "eV") and math.isnan(row.low + row.high)
