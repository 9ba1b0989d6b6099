"""The page of predictions without labels."""

from __future__ import annotations

import html
import math

import pytest

from jaxmat.report import forecast
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


def test_crystals_of_several_tables_may_have_the_same_ids() -> None:
    """A row of each property for each crystal: ids say nothing of how many there are."""
    both = [one._replace(property=name) for one in [*rows("eV"), *rows("eV")] for name in "ab"]
    text = forecast_page(both, [], "x", "y")
    assert "a, b of 6 crystals</h1>" in text and "Crystals: 2<" in text
    for place in (3, 6):
        assert f'<td class="text">{place}</td><td class="text">eV3</td>' in text
    assert '<td class="text">unreadable</td><td class="number">2</td>' in text


def test_remarks_are_listed_with_their_crystals() -> None:
    first, *others = rows("eV")
    assert "Remarks" not in forecast_page([first, *others], [], "x", "y")
    text = forecast_page([first._replace(remark="not periodic along c"), *others], [], "x", "y")
    assert "Remarks</h2>" in text
    assert '<td class="text">eV1</td><td class="text">not periodic along c</td>' in text


def test_a_page_says_where_it_shows_less_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_LISTED", 2)
    many = [one._replace(remark="odd") for one in rows("eV") for _ in range(3)]
    text = forecast_page(many, ["m"], "x.csv", "y", complete=False)
    assert "Predicted by m; the first 9 predictions are shown, all of it is in x.csv." in text
    for count in ("All predictions: the first 2 of 6", "Crystals: the first 2 of 3"):
        assert count in text
    assert "Crystals: the first 2 of 9" in text  # the remarks


def test_zero_has_no_minus() -> None:
    zero = Predicted("a", "gap", "eV", -0.0, -0.0, 0.0, "")
    text = html.unescape(forecast_page([zero], [], "x", "y"))
    assert "<strong>0.000 eV</strong>, interval 0.000 to 0.000" in text


def test_one_crystal_has_its_interval_in_the_first_line() -> None:
    text = forecast_page(rows("eV")[:1], ["shear"], "x", "y")
    assert "gap of 1 crystal</h1>" in text
    assert "<strong>1.500 eV</strong>, interval 1.000 to 2.000" in text


def test_nothing_to_show() -> None:
    assert "nothing could be predicted" in forecast_page(rows("eV")[2:], [], "x", "y")
    assert forecast_page([], [], "x", "y").count("<section>") == 1
    assert page("a", [], []).endswith("</html>\n")
