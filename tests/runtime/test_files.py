"""Files are whole or not there; what is shown of others' text does no harm."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.bundles.trained import load
from jaxmat.commands.program import parse_flags
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults, run
from jaxmat.experiments.fit import fit
from jaxmat.report.rows import read_rows, write_rows
from jaxmat.runtime.files import (
    read_json,
    refuse_addresses,
    rejoin_paths,
    shown,
    shown_lines,
    to_json,
    whole_file,
    write_json,
)


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("before")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(file) as unfinished:
            unfinished.write_text("half")
            raise error
        assert file.read_text() == "before"
        assert list(tmp_path.iterdir()) == [file]
    with whole_file(file) as unfinished:
        unfinished.write_text("after")
        assert unfinished.suffix == ".csv"
    assert file.read_text() == "after" and list(tmp_path.iterdir()) == [file]


def test_a_link_goes_on_to_lead_where_it_led(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "real.json")
    write_json(link, {"a": 1})
    assert link.is_symlink() and json.loads((tmp_path / "there" / "real.json").read_text())


def test_a_device_is_written_to() -> None:
    with whole_file("/dev/null") as device:
        device.write_text("gone")
    assert not os.path.isfile("/dev/null")


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mae": math.nan, "all": [1.0, (math.inf, "x")]})
    assert read_json(tmp_path / "a.json") == {"mae": None, "all": [1.0, [None, "x"]]}
    assert "NaN" not in to_json([math.nan])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON at line 1, column 1"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": "\xff"}', "not text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * 200, "more than"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.json cannot be read: .*{message}"):
        read_json(tmp_path / "a.json", most=100 if len(content) == 200 else 2**20)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (tmp_path, "folder"), ("/dev/zero", "device")):
        with pytest.raises(UserError, match=f"cannot be read: it is a .*{kind}"):
            read_json(path)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "nowhere")


@given(st.lists(st.text(st.characters(exclude_categories=[]), min_size=1), min_size=1, max_size=5))
def test_cells_are_harmless_and_come_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    # A lone half of a pair is not text unless it stands for a byte of a file's name.
    texts = [text.encode("utf-8", "ignore").decode() for text in texts] + ["caf\udce9.cif"]
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(file, ["id", "x"], [(text, 1.5) for text in texts])
    content = file.read_bytes().decode("utf-8", "surrogateescape")
    assert [cells["id"] for _, cells in read_rows(file, ["id"])] == texts
    assert content.count("\n") == len(texts) + 1
    assert not set(content) & {"\r", "\t", "\x1b", "\x00", "\u202e"}
    for line in content.splitlines():
        start = line.lstrip('"')[:1]
        assert start not in {"=", "@"}


def test_formulas_are_text_and_numbers_stay(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    write_rows(file, ["id"], [["=HYPERLINK(1)"], ["-1"], ["+cmd|x"], ["'a"], ["a\tb"]])
    cells = file.read_text().splitlines()[1:]
    assert cells == ["'=HYPERLINK(1)", "-1", "'+cmd|x", "''a", "'a\\x09b"]


def test_control_characters_are_written_out() -> None:
    assert shown("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\x0ab\\u202e"
    assert shown_lines("a\n\tb\x07\r") == "a\n\tb\\x07\\x0d"


def test_a_comma_inside_a_path_is_no_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.cif", "c, d", "e"):
        Path(name).touch()
    assert rejoin_paths("a,b.cif,e,nowhere,c,d".split(",")) == ["a,b.cif", "e", "nowhere", "c, d"]
    assert rejoin_paths([]) == []
    assert rejoin_paths(["", "e", " "]) == ["e"]


@pytest.mark.parametrize(
    "address", ["gs://bucket/run", "s3://bucket/a.json", Path("gs://bucket/run"), "https://a.b/c"]
)
def test_addresses_are_not_taken_for_paths(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = defaults.scratch(path=str(address), target="gap", unit="eV")
    values = flags.FlagValues()
    flags.DEFINE_list("model", None, "", flag_values=values)
    silicon = Structure(Lattice.cubic(4), ["Si"], [[0, 0, 0]])
    for attempt in (
        lambda: run(defaults.scratch(path="a.json", target="gap", unit="eV"), address),
        lambda: run(config, tmp_path / "run"),
        lambda: load(address),
        lambda: read_table(address),
        lambda: fit([silicon], [1.0], unit="eV", workdir=address),
        lambda: parse_flags(["jaxmat predict", f"--model=a,{address}"], values),
    ):
        with pytest.raises(UserError, match="address"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_paths_are_not_taken_for_addresses():
    refuse_addresses(
        {"a": "runs/a:b", "b": "bundled:dielectric", "c": None, "d": ["a", Path("/b")]}
    )
