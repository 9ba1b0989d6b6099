"""Splits: disjoint, nested, the same on every machine, and checked when read from a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmat.data.splits import Split, labelled_rows, random_split, read_split, write_split
from jaxmat.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)
CANDIDATES = np.arange(0, 200, 2)


def draw(n_train: int = 50, n_validation: int = 10, n_test: int = 20, **changes) -> Split:
    arguments = {"candidates": CANDIDATES, "seed": 1, "test_seed": 0, **changes}
    return random_split(**arguments, n_train=n_train, n_validation=n_validation, n_test=n_test)


@settings(max_examples=50, deadline=None)
@given(
    candidates=st.sets(st.integers(0, 10_000), min_size=1, max_size=60),
    parts=st.tuples(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30)),
    seed=SEEDS,
    test_seed=SEEDS,
)
def test_parts_are_disjoint_candidates_of_the_asked_size(candidates, parts, seed, test_seed):
    rows = np.array(sorted(candidates))
    if sum(parts) > len(rows):
        with pytest.raises(UserError, match=f"{sum(parts)} from {len(rows)}"):
            draw(*parts, candidates=rows, seed=seed, test_seed=test_seed)
        return
    split = draw(*parts, candidates=rows, seed=seed, test_seed=test_seed)
    drawn = np.concatenate(split)
    assert tuple(map(len, split)) == parts
    assert all(part.dtype == np.int64 for part in split)
    assert len(set(drawn)) == len(drawn) and set(drawn) <= candidates


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, small=st.integers(1, 70), large=st.integers(1, 70))
def test_training_sets_are_nested_and_the_rest_stays(seed: int, small: int, large: int) -> None:
    small, large = sorted((small, large))
    few, many = draw(small, seed=seed), draw(large, seed=seed)
    np.testing.assert_array_equal(few.train, many.train[:small])
    np.testing.assert_array_equal(few.validation, many.validation)
    np.testing.assert_array_equal(few.test, many.test)


def test_test_rows_depend_on_their_own_seed_alone() -> None:
    reference = draw()
    backwards = CANDIDATES[::-1]
    for other in (draw(seed=2), draw(n_train=5, n_validation=40), draw(candidates=backwards)):
        np.testing.assert_array_equal(other.test, reference.test)
    assert set(draw(test_seed=5).test) != set(reference.test)
    assert set(draw(seed=2).train) != set(reference.train)
    np.testing.assert_array_equal(draw(n_test=5).test, reference.test[:5])


def test_rows_are_drawn_evenly() -> None:
    counts = np.zeros((3, 100))
    for seed in range(300):
        for number, part in enumerate(draw(30, 20, 50, seed=seed, test_seed=seed)):
            counts[number, part // 2] += 1
    for count, share in zip(counts, (0.3, 0.2, 0.5), strict=True):
        assert np.abs(count / 300 - share).max() < 5 * np.sqrt(share * (1 - share) / 300)


def test_split_is_pinned() -> None:
    split = random_split(np.arange(10), seed=7, test_seed=3, n_train=3, n_validation=2, n_test=2)
    assert [part.tolist() for part in split] == [[7, 8, 3], [2, 5], [9, 1]]


@pytest.mark.parametrize("parts", [(0, 1, 1), (1, -1, 1), (1, 1, -1), (101, 0, 0)])
def test_impossible_sizes_are_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="cannot draw"):
        draw(*parts)


def test_rows_without_a_label_never_enter() -> None:
    labels = np.array([1.0, np.nan, 0.0, np.nan])
    assert labelled_rows(labels).tolist() == [0, 2]
    assert labelled_rows(np.stack([labels, labels[::-1]], axis=1)).tolist() == [0, 1, 2, 3]
    assert labelled_rows(np.full((2, 3), np.nan)).tolist() == []


def test_file_round_trip_keeps_the_order(tmp_path: Path) -> None:
    ids = [f"mp-{row}-é" for row in range(200)]
    split = draw()
    write_split(
        tmp_path / "split.json",
        {part: [ids[row] for row in rows] for part, rows in split._asdict().items()},
    )
    parts = read_split(tmp_path / "split.json", ids)
    for read, written in zip(parts.values(), split, strict=True):
        assert read.dtype == np.int64
        np.testing.assert_array_equal(read, written)


def test_ids_are_written_out_as_those_of_tables_are(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"train": ["cut \\ud83d", "whole \\ud83d\\ude00"]}')
    ids = ["whole \U0001f600", "cut \\ud83d"]  # see `jaxmat.data.reading.read`
    assert read_split(path, ids)["train"].tolist() == [1, 0]


def test_on_a_full_disk_the_file_of_before_stays(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "split.json"
    write_split(path, {"train": ["a"]})

    def full(file: Path, text: str, **_: object) -> None:
        file.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_split(path, {"train": ["b"]})
    assert read_split(path, ["a"])["train"].tolist() == [0]
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_ids_too_and_a_part_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"train": [11, "10"], "validation": [], "test": [12]}')
    split = read_split(path, ["10", "11", "12"])
    assert {part: rows.tolist() for part, rows in split.items()} == {
        "train": [1, 0],
        "validation": [],
        "test": [2],
    }
    path.write_text('{"val": [11], "train": [10]}')
    assert list(read_split(path, ["10", "11", "12"])) == ["train", "validation"]
    path.write_text('{"id_train": ["10"], "id_val": ["11"], "id_test": ["12"]}')  # of ALIGNN
    assert [rows.tolist() for rows in read_split(path, ["10", "11", "12"]).values()] == [
        [0],
        [1],
        [2],
    ]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("[", ["cannot be read"]),
        ("[]", ["not a JSON object"]),
        ('{"test": []}', ["expected"]),
        ('{"train": [], "validation": [], "test": {}}', ["expected"]),
        ('{"train": [], "validation": [], "test": [], "jid": []}', ["expected"]),
        (
            {"train": ["a", "a", "x"], "validation": ["b"], "test": ["b", "y"]},
            [
                "x (train) is not in the table",
                "y (test) is not in the table",
                "a appears 2 times, in train",
                "b appears 2 times, in validation, test",
            ],
        ),
    ],
)
def test_bad_split_files_are_explained(tmp_path: Path, content, reasons: list[str]) -> None:
    path = tmp_path / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match="split.json") as error:
        read_split(path, ["a", "b", "c"])
    assert all(reason in str(error.value) for reason in reasons)


def test_missing_split_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.json cannot be read"):
        read_split(tmp_path / "nothing.json", [])
