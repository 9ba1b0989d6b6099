"""What a value may be, and the words for one that is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jaxmat.values import Allowed, flag, one_of, optional, problem, problems, real, several, whole


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        (whole(1, 3), [1, 3], [0, 4, 1.0, True, "1", None, math.nan]),
        (whole(0), [0, 10**9], [-1]),
        (real(0, 1), [0, 1, 0.5], [-0.1, 1.1, math.nan, math.inf, False, "0"]),
        (real(above=0, below=1), [0.5], [0, 1]),
        (real(), [-1e9, 3], [math.inf, 1j]),
        (flag(), [True, False], [0, 1, "true", None]),
        (one_of("a", "b"), ["a"], ["c", 1, None, ["a"]]),
        (several(one_of("a"), least=1), [("a",), ["a", "a"]], [(), "a", ("b",)]),
        (optional(flag()), [None, True], [0]),
    ],
)
def test_values(allowed: Allowed, good: list[Any], bad: list[Any]) -> None:
    assert not [value for value in good if problem("x", value, allowed)]
    assert not [value for value in bad if not problem("x", value, allowed)]


def test_words() -> None:
    assert problem("x", -1, whole(0)) == "x is -1; it has to be a whole number from 0 on"
    assert problem("x", "l3", one_of("l1", "mse")) == (
        "x is 'l3'; it has to be 'l1' or 'mse'; did you mean 'l1'?"
    )
    assert real(0, below=1).text == "a number from 0 on and below 1"
    assert len(problem("x", "y" * 10_000, flag()) or "") < 200


def test_all_fields_in_one_list() -> None:
    found = problems("t.", {"epochs": 0, "losss": "l1"}, {"epochs": whole(1), "loss": one_of("l1")})
    assert found == [
        "t.epochs is 0; it has to be a whole number from 1 on",
        "t.losss is unknown; did you mean loss?",
        "t.loss is missing",
    ]
