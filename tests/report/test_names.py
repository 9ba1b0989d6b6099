"""Runs are named by the ends of their paths, as long as it takes to tell them apart."""

from __future__ import annotations

import pytest

from jaxmat.report.names import short_name, short_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/x/runs/shear", "shear"),
        ("/home/x/runs/shear/model", "shear/model"),
        ("../runs/seed_0/pretrain", "seed_0/pretrain"),
        ("model", "model"),
        ("", ""),
    ],
)
def test_runs_have_short_names(path: str, name: str) -> None:
    assert short_name(path) == name


def test_names_tell_runs_apart() -> None:
    paths = ["a/shear", "/b/shear", "/b/bulk/model", "", "c/bulk/model"]
    names = short_names(paths)
    assert names == {
        **{"a/shear": "a/shear", "/b/shear": "b/shear", "": ""},
        **{"/b/bulk/model": "b/bulk/model", "c/bulk/model": "c/bulk/model"},
    }
