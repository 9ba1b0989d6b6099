"""Whatever a table, its labels or a split are, a run is refused with a reason or can be trained."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.reading import read as read_sources
from jaxmat.data.splits import read_split
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.prepare import PARTS, prepare

from .conftest import bounded, fuzz

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # pymatgen's remarks
    pytest.mark.filterwarnings("error:::jaxmat"),
]

ROWS = 8
CRYSTALS = [
    Structure(Lattice.cubic(4 + row / 10), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()
    for row in range(ROWS)
]
words = st.sampled_from(
    ["", "na", "NaN", "None", "N/A", "inf", "-Infinity", "1e308", "1e-320", "x"]
)
cells = (
    st.floats()
    | st.floats(0.1, 10)
    | st.integers(-(10**400), 10**400)
    | st.none()
    | st.booleans()
    | words
    | st.lists(st.floats(), max_size=2)
)
columns = st.lists(st.floats(-10, 10), min_size=ROWS, max_size=ROWS) | st.lists(
    cells, min_size=ROWS, max_size=ROWS
)


def layout(labels: list[Any]) -> dict[str, Any]:
    rows = [[crystal, label] for crystal, label in zip(CRYSTALS, labels, strict=True)]
    return {"index": list(range(ROWS)), "columns": ["structure", "gap"], "data": rows}


def prepare_table(path: Path, **fields: Any) -> None:
    """Prepares a run; what comes of it can be trained on."""
    config = defaults.data(path=str(path), target="gap", unit="eV")
    config.update(n_validation=1, n_test=1, **fields)
    with bounded():
        try:
            prepared = prepare(config, 0, GraphSettings())
        except UserError as problem:
            assert str(problem)
            return
    for part in PARTS:
        target = prepared.datasets[part].target.astype(np.float32)
        assert len(target) == len(prepared.ids[part]) > 0
        assert np.isfinite(target).all()
    (transform,) = prepared.transforms.values()
    back = transform.to_unit(prepared.datasets["test"].target[:, 0])
    noise = 1e-12 * (abs(transform.offset) + transform.scale)
    np.testing.assert_allclose(back, prepared.labels["test"][:, 0], rtol=1e-9, atol=noise)


@fuzz
@example(labels=[0.0, 0.0, 5.7e-67, 0.0, 0.0, 1.0, 0.0, 0.0], log=False, scaling="standard")
@given(labels=columns, log=st.booleans(), scaling=st.sampled_from(["standard", "minmax"]))
def test_labels(tmp_path_factory: pytest.TempPathFactory, labels, log, scaling) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.json"
    path.write_text(json.dumps(layout(labels)))
    prepare_table(path, log=log, scaling=scaling)


def as_csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


names = st.sampled_from(["c0", "c0.json", "c1", "c2", "../x", "/dev/zero", ".", "n" * 300, "a\0b"])


@fuzz
@given(
    head=st.lists(st.text(max_size=5), max_size=3) | st.just(["file", "gap"]),
    rows=st.lists(
        st.tuples(names | st.text(max_size=5), words | st.text(max_size=5)).map(list), max_size=5
    ),
)
def test_csv_tables(tmp_path_factory: pytest.TempPathFactory, head, rows) -> None:
    folder = tmp_path_factory.getbasetemp()
    for i in range(3):
        (folder / f"c{i}.json").write_text(json.dumps(CRYSTALS[i]))
    path = folder / "labels.csv"
    path.write_text(as_csv([head, *rows]), encoding="utf-8", errors="replace", newline="")
    prepare_table(path)


anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.sampled_from("0 1 7 structure".split()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ids = st.lists(st.integers(-1, ROWS) | st.sampled_from(["0", "5", None, "é"]), max_size=ROWS)


@fuzz
@given(
    st.fixed_dictionaries({part: ids | anything for part in PARTS}).map(json.dumps)
    | st.fixed_dictionaries({}, optional={part: anything for part in PARTS}).map(json.dumps)
    | anything.map(json.dumps)
    | st.binary(max_size=50)
)
def test_split_files(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "split.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with bounded():
        try:
            split = read_split(path, [str(row) for row in range(ROWS)])
        except UserError as problem:
            assert "split.json" in str(problem)
            return
    drawn = np.concatenate(list(split.values())).tolist()
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(ROWS))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes replaced, dropped and cut off; other line ends, a byte order mark, another coding."""
    if draw(st.booleans()):
        content = content.replace(b", ", draw(st.sampled_from([b",\r\n", b",", b",,", b"\0"])))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        content = (
            content[:place]
            + draw(
                st.binary(max_size=4) | st.sampled_from([b"[", b"]", b"{", b'"', b"1e999", b"-"])
            )
            + content[place + draw(st.integers(0, 5)) :]
        )
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 100_000])) + content


TABLE = json.dumps(layout(list(range(ROWS)))).encode()
CSV = b"file,gap\nc0, 1\nc1, 2\nc2, 3\n"
FILES = {"t.json": TABLE, "t.json.gz": gzip.compress(TABLE, mtime=0), "t.csv": CSV}


@pytest.mark.parametrize("name", FILES)
def test_table_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for i in range(3):
        (tmp_path / f"c{i}.json").write_text(json.dumps(CRYSTALS[i]))

    @fuzz
    @given(
        damaged(FILES[name])
        | damaged(TABLE).map(gzip.compress)
        | anything.map(lambda content: json.dumps(content).encode())
        | st.binary(max_size=300)
    )
    def read(content: bytes) -> None:
        path.write_bytes(content)
        prepare_table(path)
        with bounded():
            try:
                read_table(path)
            except UserError as problem:
                assert re.search(re.escape(name), str(problem))
            for row in read_sources(path):
                assert (row.content is None) == bool(row.reason)

    read()
