"""Reading: every crystal gets a place, in order; a bad one harms no other, whatever it does."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data import reading, reading_pool
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.reading import read
from jaxmat.data.reading_pool import Limits
from jaxmat.errors import UserError
from jaxmat.runtime.children import start_child


def crystal(edge: float = 4.0) -> Structure:
    return Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def frame(edge: float) -> str:
    cell = f"{edge} 0 0 0 {edge} 0 0 0 {edge}"
    return f'2\nLattice="{cell}"\nNa 0 0 0\nCl {edge / 2} {edge / 2} {edge / 2}\n'


def outcomes(sources, **options) -> dict[str, float | str]:
    """Returns the edge of each crystal's cell, or why there is none."""
    return {
        entry.id: round(float(entry.content.lattice[0, 0]), 6) if entry.content else entry.reason
        for entry in read(sources, **options)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    crystal(4).to(str(tmp_path / "b.cif"))
    crystal(5).to(str(tmp_path / "a.json"))
    crystal(6).to(str(tmp_path / "deep" / "er" / "POSCAR"), fmt="poscar")
    (tmp_path / "deep" / "c.extxyz").write_text(frame(7))
    (tmp_path / "deep" / "d.xyz").write_text(frame(8) + frame(9) + "rubbish\n")
    (tmp_path / "deep" / "e.cif").write_text("no crystal")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_a_folder_gives_all_its_files_in_order(folder, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    with caplog.at_level("INFO"):
        found = outcomes(".")
    assert "passed over 1 file of names that say no" in caplog.text
    bad_cif, bad_frame = found.pop("deep/e.cif"), found.pop("deep/d.xyz")
    assert "expected data_NAME" in bad_cif and "frame 2: expected a number of atoms" in bad_frame
    assert found == {
        "a.json": 5,
        "b.cif": 4,
        "deep/c.extxyz": 7,
        "deep/d.xyz@0": 8,
        "deep/d.xyz@1": 9,
        "deep/er/POSCAR": 6,
    }
    names = [entry.id for entry in read(["deep/er", "b.cif", "a.json", "b.cif"])]
    assert names == ["deep/er/POSCAR", "b.cif", "a.json", "b.cif"]


@pytest.mark.parametrize("source", [3, None])
def test_what_is_nothing_that_can_be_read_has_a_reason(source):
    """It ended with a traceback, where a list of it had reasons."""
    (alone,), (listed,) = read(source), read([source])
    assert alone == listed and "is not a crystal: expected" in alone.reason


def test_structures_are_numbered():
    assert outcomes([crystal(4), crystal(5)]) == {"0": 4, "1": 5}
    assert outcomes(crystal()) == {"0": 4}
    assert outcomes([]) == {}


def test_rows_of_tables_fail_one_by_one(folder):
    rows = [[crystal(4).as_dict(), 1], [None, 2], [crystal(6).as_dict(), None]]
    layout = {"index": ["x", "y", "z"], "columns": ["structure", "gap"], "data": rows}
    for name in ("t.json", "t.json.gz"):
        content = json.dumps(layout).encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        found = outcomes(folder / name)
        assert found.pop("y") == "unreadable: not a structure: column 'structure' has null"
        assert found == {"x": 4, "z": 6}
    (folder / "t.csv").write_text("file,gap\nb,1\na\nnowhere,2\na.json,inf\n")
    found = outcomes(str(folder / "t.csv"))
    assert list(found) == ["b", "a", "nowhere", "a.json"]
    assert found["b"] == 4 and found["a.json"] == 5
    assert "1 cells, the header has 2" in found["a"] and "no file 'nowhere'" in found["nowhere"]


def test_bundled_tables_are_inputs():
    first = next(read("bundled:dielectric"))
    assert (first.id, first.structure.formula) == ("mp-441", "Rb2 Te1")
    assert sum(1 for _ in read("bundled:dielectric")) == 1056


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nowhere", None, "there is no file or folder nowhere"),
        ("nowhere.cif", None, "there is no file or folder nowhere.cif"),
        ("nowhere.csv", None, "there is no file or folder nowhere.csv"),
        ("nowhere.json", None, "there is no file or folder nowhere.json"),
        ("bundled:nowhere", None, "no bundled table 'nowhere'"),
        ("empty.csv", b"", "it is empty"),
        ("broken.json.gz", b"\x1f\x8b{}", "it cannot be unpacked"),
        ("broken.json", b"{", "not JSON: line 1"),
        ("table.json", b'{"columns": []}', "a table is"),
        ("empty.xyz", b"", "it is empty"),
        ("structure.dat", b"no crystal\n", "unknown format"),
    ],
)
def test_what_cannot_be_opened_is_one_input(tmp_path, monkeypatch, name, content, reason):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    found = outcomes([name, crystal()])
    assert found.keys() == {name, "1"} and reason in str(found[name])


def test_a_folder_without_structures_is_one_input(tmp_path):
    (tmp_path / "table.csv").touch()
    assert "holds no CIF" in str(outcomes(tmp_path)[str(tmp_path)])


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_change_nothing(folder, workers):
    """Neither the rows nor their order, whoever reads them."""
    rows = [[crystal(4 + i % 7).as_dict() if i % 5 else None, i] for i in range(400)]
    layout = {"index": list(range(400)), "columns": ["structure", "gap"], "data": rows}
    (folder / "t.json").write_text(json.dumps(layout))
    sources = [folder / "deep", folder / "t.json", crystal(3), folder / "b.cif", "nowhere"]
    alone = [entry._replace(content=None, share=0) for entry in read(sources, workers=0)]
    shared = list(read(sources, workers=workers))
    assert [entry._replace(content=None, share=0) for entry in shared] == alone
    assert [entry.share for entry in shared] == sorted(entry.share for entry in shared)
    assert shared[-1].share == 1
    assert [e.content is None for e in shared] == [e.content is None for e in read(sources)]


def test_halves_of_characters_in_ids_are_written_out(tmp_path):
    """As JSON has them where a text with an emoji was cut."""
    cell = Structure(Lattice.cubic(4), ["Cu"], [[0, 0, 0]]).as_dict()
    rows = [[id, cell] for id in ("cut \ud83d", "whole \U0001f600")]
    table = {"columns": ["material_id", "structure"], "index": ["\udc00", "1"], "data": rows}
    (tmp_path / "t.json").write_text(json.dumps(table))
    found = list(read(tmp_path / "t.json"))
    assert [row.id for row in found] == ["cut \\ud83d", "whole \U0001f600"]
    assert [row.name for row in found] == ["\\udc00", "1"]
    assert not any(row.reason for row in found)


def test_names_that_are_not_utf_8_pass_through(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.cif")
    Path(name).write_text(crystal().to(fmt="cif"))
    (entry,) = read(tmp_path, workers=1)
    assert (entry.id, entry.reason) == (name, "")


HOSTILE = """
import sys, time
from jaxmat.data import reading_worker
whole = reading_worker.read_row

def read_row(row):
    if "slow" in row.name:
        time.sleep(60)
    if "large" in row.name:
        bytearray(2**31)
    if "fatal" in row.name:
        sys.stdout.flush()
        import os
        os._exit(1)
    return whole(row)

reading_worker.read_row = read_row
reading_worker.main(*sys.argv[1:])
"""


SHARED = [("", 1), ("", 2), ("table.csv", 1), ("table.csv", 2)]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Processes in which some files take too long, too much memory, or end the process."""
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "worker.py").write_text(HOSTILE)
    monkeypatch.setattr(reading_pool, "_PROGRAM", [str(tmp_path / "hostile" / "worker.py")])
    for number, name in enumerate(["a", "large", "b", "slow", "c", "fatal", "d"]):
        (tmp_path / f"{number}_{name}.cif").write_text(crystal(4 + number).to(fmt="cif"))
    files = "".join(f"{path.name},1\n" for path in sorted(tmp_path.glob("*.cif")))
    (tmp_path / "table.csv").write_text("file,gap\n" + files)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "workers", "shared"),
    [("table.csv", 1, False)]
    + [pytest.param(*case, True, marks=pytest.mark.slow) for case in SHARED],
)
def test_what_passes_a_limit_harms_no_other(hostile, monkeypatch, source, workers, shared):
    """Nor the rows behind it in a table that is too small to be shared among processes."""
    if shared:
        monkeypatch.setattr(reading, "_WORTH_SHARING", 0)
    monkeypatch.chdir(hostile)
    found = outcomes(source or ".", limits=Limits(3.0, 1400), workers=workers)
    told = [found[id] for id in sorted(found)]
    assert told[::2] == [4, 6, 8, 10]
    assert "more than 1400 MB" in told[1]
    assert "more than 3 s" in told[3]
    assert "ends the process that reads it (exit code 1)" in told[5]


def test_a_table_that_does_not_go_on_is_left_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_WORTH_SHARING", 0)
    script = "import sys, time\nfrom jaxmat.data import reading_worker as w\nold = w.read_rows\n"
    script += "def new(source, *more):\n    rows = old(source, *more)\n    yield next(rows)\n"
    script += "    time.sleep(60 * source.endswith('t.csv'))\n"
    (tmp_path / "w.py").write_text(script + "w.read_rows = new\nw.main(*sys.argv[1:])\n")
    monkeypatch.setattr(reading_pool, "_PROGRAM", [str(tmp_path / "w.py")])
    crystal().to(str(tmp_path / "a.cif"))
    (tmp_path / "t.csv").write_text("file,gap\n" + "a,1\n" * 9)
    found = outcomes([tmp_path / "t.csv", tmp_path / "a.cif"], limits=Limits(2.0), workers=2)
    assert "more than 2 s; the rest is left out" in found[str(tmp_path / "t.csv")]
    assert found[str(tmp_path / "a.cif")] == 4


def test_a_small_table_that_does_not_go_on_is_left_where_it_is(tmp_path, monkeypatch):
    """Rows that are read before the process is stopped are not read again."""
    script = "import sys, time\nfrom jaxmat.data import reading_worker as w\nold = w.read_rows\n"
    script += "def new(source, *more):\n    for i, row in enumerate(old(source, *more)):\n"
    script += "        time.sleep(60 * (i == 2))\n        yield row\n"
    (tmp_path / "w.py").write_text(script + "w.read_rows = new\nw.main(*sys.argv[1:])\n")
    monkeypatch.setattr(reading_pool, "_PROGRAM", [str(tmp_path / "w.py")])
    crystal().to(str(tmp_path / "a.cif"))
    (tmp_path / "t.csv").write_text("file,gap\na,1\na,2\na,3\n")
    found = list(read([tmp_path / "t.csv", tmp_path / "a.cif"], limits=Limits(2.0), workers=1))
    assert [entry.content is not None for entry in found] == [True, True, False, True]
    assert "more than 2 s; the rest is left out" in found[2].reason


def test_a_program_that_was_suspended_blames_no_file(folder, monkeypatch):
    """Between any two looks at the clock a day has passed."""
    sources = [folder / "b.cif", folder / "a.json"] * 40
    clock = SimpleNamespace(monotonic=itertools.count(step=86_400.0).__next__)
    monkeypatch.setattr(reading_pool, "time", clock)
    limits = Limits(seconds=3600)
    reasons = {entry.reason for entry in read(sources, limits=limits, workers=2)}
    assert reasons == {""}


def test_messages_are_whole_whatever_python_is_told_about_buffers(monkeypatch):
    """An unbuffered stream writes as much as the pipe takes before a signal, and no more."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with start_child("-c", "import sys; print(type(sys.stdout.buffer).__name__)") as child:
        assert child.communicate()[0].strip() == b"BufferedWriter"


def test_processes_that_cannot_start_are_no_fault_of_the_files(folder):
    with pytest.raises(UserError, match="limit of 20 MB too low"):
        list(read(folder, limits=Limits(megabytes=20), workers=1))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_table_without_hope_is_not_read_to_its_end(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(reading, "_WORTH_SHARING", 0)
    text = json.dumps([{"structure": crystal().as_dict()}] + [{}] * 30_000)
    (tmp_path / "t.json").write_text(text)
    found = list(read(tmp_path / "t.json", workers=workers))
    assert found[0].content is not None
    assert len(found) < 10_100 and "the rest is left out" in found[-1].reason


@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "folder", "no permission"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "a.cif"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no permission":
        path.touch(0)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    if kind == "no permission" and os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    (tmp_path / "b.csv").write_text("file\na.cif\n")
    for source in (path, tmp_path / "b.csv"):
        (entry,) = read(source)
        assert entry.content is None and entry.reason


def test_rows_without_a_label_that_is_asked_for_are_not_read(tmp_path):
    crystal().to(str(tmp_path / "a.cif"))
    (tmp_path / "t.csv").write_text("file,gap,other\na,1,\na,,2\nnowhere,na,3\n")
    entries = list(read(tmp_path / "t.csv", Wanted(labels=("gap",))))
    assert [entry.content is not None for entry in entries] == [True, False, False]
    assert [entry.reason for entry in entries] == ["", "", ""]
