"""The page of predictions without labels."""

from __future__ import annotations

import math

from jaxmat.report.forecast import Predicted, forecast_page
from jaxmat.report.html import page


def rows(text: str) -> list[Predicted]:
    nan = math.nan
    return [
        Predicted(f"{text}1", "gap", text, 1.5, 1.0, 2.0, ""),
        Predicted(f"{text}2", "gap", text, 0.5, nan, nan, ""),
        Predicted(f"{text}3", "gap", text, nan, nan, nan, f"unreadable: {text}"),
    ]


def test_range_intervals_and_failures() -> None:
    text = forecast_page(rows("eV"), ["shear"], "predictions.csv", "jaxmat predict")
    for words in ("0.5000 to 1.500 eV", "for 2 crystals", "1.000 to 2.000", "unreadable", "shear"):
        assert words in text
    assert "gap of 3 crystals" in text
    assert "gap of the first 3 crystals" in forecast_page(rows("eV"), [], "x", "y", complete=False)


def test_one_crystal_has_its_interval_in_the_first_line() -> None:
    text = forecast_page(rows("eV")[:1], ["shear"], "x", "y")
    assert "gap of 1 crystal</h1>" in text
    assert "<strong>1.500 eV</strong>, interval 1.000 to 2.000" in text


def test_nothing_to_show() -> None:
    assert "nothing could be predicted" in forecast_page(rows("eV")[2:], [], "x", "y")
    assert forecast_page([], [], "x", "y").count("<section>") == 1
    assert page("a", [], []).endswith("</html>\n")
