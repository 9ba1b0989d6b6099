"""Tables: every cell in its place, numbers as precise as they deserve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmat.report.tables import format_change, format_number, format_spread, format_table

numbers = st.floats(min_value=-1e300, max_value=1e300)


@given(value=numbers, digits=st.integers(1, 8))
def test_number_keeps_its_significant_digits(value: float, digits: int) -> None:
    text = format_number(value, digits)
    assert float(text) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (0.1, "0.1000"),
        (9.99996, "10.00"),
        (-123456.7, "-123457"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (np.float32(-0.0), "0.000"),
        (1e-7, "1.000e-07"),
        (0.000123, "0.0001230"),
        (1234567, "1234567"),
        (np.int64(12), "12"),
        (np.float32(0.5), "0.5000"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_number_reads_well(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.1405, 0.1398, 0.133], "0.1378 ± 0.0041"),
        (np.array([1.0, 3.0]), "2.0 ± 1.4"),
        ([1.0, 1.2, 0.8014], "1.00 ± 0.20"),
        ([11000.0, 13000.0], "12000 ± 1400"),
        ([1e-8, 3e-8], "2.000e-08 ± 1.4e-08"),
        ([0.25], "0.2500"),
        ([0.25, 0.25], "0.2500"),
        ([0.25, math.nan], "nan"),
        ([-1.001, 1.0], "0.0 ± 1.4"),
    ],
)
def test_spread_of_trials(values: list[float], text: str) -> None:
    assert format_spread(values) == text


@pytest.mark.parametrize(
    ("change", "decimals", "text"),
    [(-0.5, 0, "-50"), (0.25, 0, "+25"), (-0.001, 0, "0"), (0.001, 0, "0"), (-0.001, 1, "-0.1")],
)
def test_a_change_that_is_shown_as_zero_has_no_sign(
    change: float, decimals: int, text: str
) -> None:
    assert format_change(change, decimals) == text


def test_table_is_aligned_markdown() -> None:
    table = format_table(
        [
            {"source": "scratch", "MAE (eV)": [0.5, 0.6], "labels": 100},
            {"source": "gap|PBE", "MAE (eV)": [0.25], "R²": -0.5},
        ]
    )
    assert table.splitlines() == [
        "| source   |      MAE (eV) | labels |      R² |",
        "| -------- | ------------: | -----: | ------: |",
        "| scratch  | 0.550 ± 0.071 |    100 |         |",
        "| gap\\|PBE |        0.2500 |        | -0.5000 |",
    ]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "long name", "β"]), st.one_of(numbers, st.text(), st.none())
        ),
        min_size=1,
    ).filter(any)
)
def test_table_is_a_rectangle(rows: list[dict[str, str | float | None]]) -> None:
    lines = format_table(rows).split("\n")
    columns = {name for row in rows for name in row}
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(columns) + 1}
