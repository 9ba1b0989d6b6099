"""A table that takes long to read is read once, goes on where it stopped, and is never outdated."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data import kept
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.reading_pool import Limits
from jaxmat.data.tables import TableRows, read_rows
from jaxmat.errors import UserError

ROOT = Path(__file__).parents[2]


def crystal(number: int) -> Structure:
    sites = 1 + number % 3
    return Structure(
        Lattice.cubic(4 + number / 100), ["Si"] * sites, [[0, 0, i / 4] for i in range(sites)]
    )


def write_table(path: Path, rows: int = 40) -> Path:
    """Some rows have no crystal, some no label, some none of a column."""
    records = []
    for number in range(rows):
        record = {
            "structure": crystal(number).as_dict(),
            "gap": None if number % 7 == 3 else number,
        }
        if number % 5 == 2:
            record["structure"] = {"lattice": "none"}
        if number % 2:
            record["note"] = f"note {number}"
        records.append(record)
    path.write_text(json.dumps(records))
    return path


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """The rows from which tables are read; all are kept, in small parts."""
    starts: list[int] = []
    read = kept.read

    def counting(path, wanted, *more):
        starts.append(wanted.start)
        return read(path, wanted, *more)

    monkeypatch.setattr(kept, "read", counting)
    monkeypatch.setattr(kept, "_SECONDS", -1.0)
    return starts


def assert_same(one: TableRows, other: TableRows) -> None:
    for name in ("path", "ids", "places", "reasons", "remarks"):
        assert getattr(one, name) == getattr(other, name)
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])
    assert one.contents.sites.tolist() == other.contents.sites.tolist()
    rows = np.flatnonzero(one.contents.sites)
    keys = np.array([other.contents[row].key() for row in rows.tolist()], "S16")
    assert one.contents.take(rows).keys().tolist() == keys.tolist()


def in_memory(path: Path, wanted: Wanted, tmp_path: Path) -> TableRows:
    rows = read_rows(path, wanted, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    return rows


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(labels=("gap",)), Wanted(labels=("note",))])
def test_what_is_kept_is_what_was_read(tmp_path, wanted, monkeypatch, request):
    path = write_table(tmp_path / "t.json")
    whole = in_memory(path, wanted, tmp_path)
    starts = request.getfixturevalue("reads")
    for _ in range(3):
        assert_same(read_rows(path, wanted, folder=tmp_path / "kept"), whole)
    assert starts == [0]


def test_a_table_that_is_read_at_once_is_not_kept(tmp_path):
    read_rows(write_table(tmp_path / "t.json"), folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("damage", ["none", "half a line", "crystals lost", "one byte"])
def test_reading_goes_on_where_it_was_stopped(tmp_path, reads, monkeypatch, damage):
    path, folder = write_table(tmp_path / "t.json"), tmp_path / "kept"
    encode, seen = kept._encode, []

    def stopping(reading):
        seen.append(reading)
        if len(seen) == 25:
            raise KeyboardInterrupt
        return encode(reading)

    monkeypatch.setattr(kept, "_encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        read_rows(path, folder=folder)
    (place,) = folder.iterdir()
    rows, crystals = (place / "rows.jsonl").read_bytes(), (place / "crystals.bin").read_bytes()
    if damage == "half a line":
        (place / "rows.jsonl").write_bytes(rows[:-5])
    elif damage == "crystals lost":
        (place / "crystals.bin").write_bytes(crystals[:-200])
    elif damage == "one byte":
        (place / "crystals.bin").write_bytes(crystals[:500] + b"?" + crystals[501:])
    found = read_rows(path, folder=folder)
    assert len(reads) == 2
    assert reads[1] == 24 if damage == "none" else 0 < reads[1] < 24
    assert_same(found, read_rows(path, folder=tmp_path / "another"))
    assert_same(found, read_rows(path, folder=folder))
    assert len(reads) == 3


@pytest.mark.parametrize(
    "change", ["table", "wanted", "limits", "readers", "rows", "crystals", "keys"]
)
def test_nothing_old_is_given(tmp_path, reads, monkeypatch, change, caplog):
    path, folder = write_table(tmp_path / "t.json"), tmp_path / "kept"
    wanted, limits = Wanted(), Limits()
    read_rows(path, wanted, limits, folder=folder)
    (place,) = folder.iterdir()
    if change == "table":
        status = path.stat()
        path.write_text(path.read_text().replace("4.01", "4.02"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "wanted":
        wanted = Wanted(id_column="")
    elif change == "limits":
        limits = Limits(seconds=9.0)
    elif change == "readers":
        monkeypatch.setattr(kept, "_readers", lambda: "of a later version")
    else:
        names = {"rows": "rows.jsonl", "crystals": "crystals.bin", "keys": "keys.bin"}
        file = place / names[change]
        content = bytearray(file.read_bytes())
        content[200] ^= 1
        file.write_bytes(content)
    found = read_rows(path, wanted, limits, folder=folder)
    assert reads == [0, 0]
    assert ("damaged" in caplog.text) == (change in ("rows", "crystals", "keys"))
    assert_same(found, read_rows(path, wanted, limits, folder=tmp_path / "another"))


def test_files_that_a_table_names_may_change(tmp_path, reads):
    folder = tmp_path / "kept"
    for number in (1, 2):
        crystal(number).to(str(tmp_path / f"c{number}.cif"))
    path = tmp_path / "t.csv"
    path.write_text("file,gap\nc1,1\nc2,2\nc3,3\n")
    found = read_rows(path, folder=folder)
    assert [bool(reason) for reason in found.reasons] == [False, False, True]
    assert_same(read_rows(path, folder=folder), found)
    assert reads == [0]
    crystal(7).to(str(tmp_path / "c2.cif"))
    changed = read_rows(path, folder=folder)
    assert changed.contents[1].key() != found.contents[1].key()
    crystal(3).to(str(tmp_path / "c3.cif"))
    assert read_rows(path, folder=folder).reasons == ["", "", ""]
    assert reads == [0, 0, 0]


def test_what_was_not_used_for_long_is_forgotten(tmp_path, reads):
    """And only that: a table may lie on a drive that is not mounted now."""
    folder = tmp_path / "kept"
    first, second = (write_table(tmp_path / name) for name in ("a.json", "b.json"))
    read_rows(first, folder=folder)
    read_rows(second, folder=folder)
    for lock in folder.glob("*/lock"):
        old = time.time() - 91 * 86_400
        os.utime(lock, (old, old))
    (folder / "another program's").mkdir()
    read_rows(second, folder=folder)  # is used again
    text = first.read_text()
    first.unlink()
    read_rows(write_table(tmp_path / "c.json"), folder=folder)
    assert len(list(folder.iterdir())) == 3 and len(reads) == 3
    second.rename(tmp_path / "away")
    read_rows(write_table(tmp_path / "d.json"), folder=folder)
    (tmp_path / "away").rename(second)
    read_rows(second, folder=folder)
    assert len(reads) == 4
    first.write_text(text)
    read_rows(first, folder=folder)
    assert len(reads) == 5


def test_two_environments_keep_what_each_has_read(tmp_path, reads, monkeypatch):
    path, folder = write_table(tmp_path / "t.json"), tmp_path / "kept"
    for versions in (["1"], ["2"]) * 2:
        monkeypatch.setattr(kept, "_versions", lambda versions=versions: versions)
        monkeypatch.setattr(kept, "_readers", lambda versions=versions: str(versions))
        read_rows(path, folder=folder)
    assert len(reads) == 2


def test_all_that_reads_has_a_say_in_what_is_kept(monkeypatch):
    """What a number is, and ASE where it is installed."""
    seen = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: seen.append(file.name) or read_bytes(file))
    before = kept._readers.__wrapped__()
    assert {"values.py", "cif.py", "checks.py"} <= set(seen)
    known = kept.version
    monkeypatch.setattr(kept, "version", lambda name: "0" if name == "ase" else known(name))
    assert kept._readers.__wrapped__() != before

    def missing(name):
        raise kept.PackageNotFoundError

    monkeypatch.setattr(kept, "version", missing)
    assert kept._versions() == [""] * len(kept._PACKAGES)


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path, reads, monkeypatch):
    path = write_table(tmp_path / "t.json")
    before, read = path.read_text(), kept.read

    def changing(*arguments):
        for number, row in enumerate(read(*arguments)):
            if number == 20:
                path.write_text(before.replace("note 39", "another"))
            yield row

    monkeypatch.setattr(kept, "read", changing)
    with pytest.raises(UserError, match=r"t\.json has changed while it was read"):
        read_rows(path, folder=tmp_path / "kept")
    monkeypatch.setattr(kept, "read", read)
    for text, last in ((before, "note 39"), (before.replace("note 39", "another"), "another")):
        path.write_text(text)
        assert read_rows(path, folder=tmp_path / "kept").columns["note"][39] == last
    assert reads == [0, 0, 0]


def test_what_cannot_be_kept_is_read_all_the_same(tmp_path, reads, caplog):
    path = write_table(tmp_path / "t.json")
    (tmp_path / "kept").touch()
    found = read_rows(path, folder=tmp_path / "kept")
    assert "cannot be kept" in caplog.text
    assert len(found.ids) == 40


def test_what_is_kept_may_be_used_where_it_cannot_be_written(tmp_path, reads, monkeypatch, caplog):
    path = write_table(tmp_path / "t.json")
    first = read_rows(path, folder=tmp_path / "kept")
    open_file = Path.open

    def refusing(file: Path, mode: str = "r", *more, **options):
        if "r" not in mode and file.is_relative_to(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
        return open_file(file, mode, *more, **options)

    monkeypatch.setattr(Path, "open", refusing)
    assert_same(read_rows(path, folder=tmp_path / "kept"), first)
    assert reads == [0] and not caplog.text


def test_a_table_that_breaks_off_is_refused_each_time(tmp_path, reads):
    path = write_table(tmp_path / "t.json")
    path.write_text(path.read_text()[:-200])
    for _ in range(2):
        with pytest.raises(UserError, match=r"t\.json: not JSON"):
            read_rows(path, folder=tmp_path / "kept")


@pytest.mark.slow
def test_a_reading_that_is_killed_goes_on(tmp_path):
    """With processes that read, and another that waits for the one that is killed."""
    path, folder = write_table(tmp_path / "t.json", rows=4000), tmp_path / "kept"
    script = f"""
import logging
from jaxmat.data import kept, reading
from jaxmat.data.tables import read_rows
logging.basicConfig(level=logging.INFO)
kept._SECONDS = 0.05
reading._WORTH_SHARING = 0
rows = read_rows({str(path)!r}, workers=2, folder=__import__("pathlib").Path({str(folder)!r}))
print(len(rows.ids))
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as first:
        while not [file for file in folder.glob("*/rows.jsonl") if file.stat().st_size > 20_000]:
            assert first.poll() is None
            time.sleep(0.01)
        second = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(0.5)
        first.send_signal(signal.SIGKILL)
    said, logged = second.communicate(timeout=120)
    assert said == "4000\n"
    assert "reading goes on after" in logged
    assert_same(read_rows(path, folder=folder), read_rows(path, folder=tmp_path / "another"))
