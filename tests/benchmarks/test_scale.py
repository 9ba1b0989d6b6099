"""What the benchmark of very large tables calls a miss."""

from __future__ import annotations

import copy

import pytest

from benchmarks.scale import find_misses

STAGES: dict[str, dict[str, float]] = {
    **{name: {"seconds": 100.0} for name in ("read, killed", "read on", "build")},
    "start": {"prepared": 4.9},
    "parts": {"duplicates": 2.0, "seconds": 90.0},
    "train": {},
    "step": {"step": 400.0},
    "report": {"report": 5.0},
}


@pytest.mark.parametrize(
    ("stage", "name", "value", "expected"),
    [
        ("train", "megabytes", 1899.0, ""),
        ("train", "megabytes", 1901.0, "train: 1901 MB, not 1900"),
        ("report", "megabytes", 1501.0, "report: 1501 MB, not 1500"),
        ("start", "prepared", 5.1, "a second start: 5.1 s, not 5"),
        ("build", "seconds", 290.0, "reading and building: 490.0 s, not 480"),
        ("parts", "duplicates", 21.0, "duplicates: 21.0 s, not 20"),
        ("parts", "seconds", 900.0, ""),
    ],
)
def test_what_passes_a_limit_is_named(stage, name, value, expected):
    stages = copy.deepcopy({key: {"megabytes": 1000.0, **told} for key, told in STAGES.items()})
    assert find_misses(stages) == []
    stages[stage][name] = value
    assert find_misses(stages) == ([expected] if expected else [])
