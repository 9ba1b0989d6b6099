"""Outputs take the place of nothing but what the same verb has made."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

import jaxmat
from jaxmat.bundles.bundle import read_bundle, save_bundle
from jaxmat.commands.command import execute
from jaxmat.commands.journal import journal
from jaxmat.commands.output import require_folder, writing
from jaxmat.commands.program import with_notes
from jaxmat.errors import UserError
from jaxmat.report.html import page
from jaxmat.runtime.files import whole_file

MODEL = Path(__file__).parents[1] / "bundles" / "v1"
CRYSTAL = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def run(verb: str, *arguments: str) -> None:
    execute(import_module(f"jaxmat.commands.{verb}").COMMAND, [f"jaxmat {verb}", *arguments])


@pytest.fixture
def crystals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a crystal and a table, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    CRYSTAL.to("a.cif")
    bundle = read_bundle(MODEL)
    save_bundle("known", bundle._replace(about=bundle.about | {"elements": ["Cl", "Na"]}))
    (tmp_path / "tables" / "splits").mkdir(parents=True)
    (tmp_path / "tables" / "gap.csv").write_text("file,gap\na.cif,1.5\n")
    shutil.copy("a.cif", "tables")
    (tmp_path / "tables" / "splits" / "gap.json").write_text('{"target_column":"gap","unit":"eV"}')
    return tmp_path


LINES = {
    "predict": ["--model=known", "--input=a.cif", "--output=out.csv"],
    "embed": ["--model=known", "--input=a.cif", "--output=out.npz"],
    "unite": ["--tables=tables", "--output=out.json.gz"],
    "convert": [f"--input={MODEL}", "--output=out.npz"],
}


@pytest.mark.parametrize("verb", LINES)
def test_a_file_of_something_else_is_not_lost(verb: str, crystals: Path) -> None:
    output = crystals / LINES[verb][-1].removeprefix("--output=")
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="it would be lost"):
        run(verb, *LINES[verb])
    assert output.read_bytes() == b"mine"
    output.unlink()
    output.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        run(verb, *LINES[verb])


@pytest.mark.parametrize("verb", ["predict", "embed", "unite"])
def test_an_earlier_output_of_the_same_verb_is_replaced(verb: str, crystals: Path) -> None:
    output = crystals / LINES[verb][-1].removeprefix("--output=")
    run(verb, *LINES[verb])
    first = output.read_bytes()
    run(verb, *LINES[verb])
    assert output.read_bytes() == first
    output.write_bytes(b"")
    run(verb, *LINES[verb])
    assert output.read_bytes() == first


def test_a_page_of_something_else_is_not_lost(crystals: Path) -> None:
    for text in ("<html>my thesis</html>", page("gap", ["the page of a run"], [])):
        (crystals / "out.html").write_text(text)
        with pytest.raises(UserError, match="The page out.html is there.*it would be lost"):
            run("predict", *LINES["predict"])
        assert not (crystals / "out.csv").exists()
        assert (crystals / "out.html").read_text() == text
    (crystals / "out.html").unlink()
    for _ in range(2):
        run("predict", *LINES["predict"])
        assert "poly_total" in (crystals / "out.html").read_text()
    for name in ("out.one", "out.two"):  # both had out.html
        run("predict", *LINES["predict"][:-1], f"--output={name}")
        assert (crystals / f"{name}.html").exists()


def test_a_model_that_was_trained_is_not_lost_to_a_conversion(crystals: Path) -> None:
    from benchmarks.hostile.models import _arrays
    from jaxmat.convert.files import write_state_dict

    write_state_dict(crystals / "w.npz", _arrays())
    flags = ["--input=w.npz", "--properties=poly_total", "--units=1"]
    run("convert", *flags, "--output=new")
    run("convert", *flags, "--output=new")
    shutil.copytree(MODEL, crystals / "model")
    before = (crystals / "model" / "config.json").read_bytes()
    with pytest.raises(UserError, match="model is a model that was trained"):
        run("convert", *flags, "--output=model")
    assert (crystals / "model" / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', None])
def test_a_model_is_no_place_for_a_run(content: str | None, crystals: Path) -> None:
    """A folder with a config.json of anything was taken for a run, and its config replaced."""
    shutil.copytree(MODEL, crystals / "model")
    if content:
        (crystals / "model" / "config.json").write_text(content)
    before = (crystals / "model" / "config.json").read_bytes()
    table = ["--data=bundled:dielectric", "--target=poly_total", "--unit=1"]
    with pytest.raises(UserError, match="holds files that are of no run"):
        run("train", *table, "--workdir=model")
    assert (crystals / "model" / "config.json").read_bytes() == before


def test_a_folder_of_something_else_gets_no_table(crystals: Path) -> None:
    (crystals / "mine").mkdir()
    (crystals / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds files that are of no run"):
        jaxmat.fit([CRYSTAL] * 3, [1.0, 2.0, 3.0], "eV", workdir=crystals / "mine")
    assert os.listdir(crystals / "mine") == ["thesis.tex"]


@pytest.mark.parametrize("name", ["x" * 200, "x" * 251 + ".csv", "漢" * 80 + ".csv"])
def test_long_names_are_written_whole(name: str, tmp_path: Path) -> None:
    """The name of the unfinished file was that of the file itself where it had 200 characters."""
    (tmp_path / name).write_text("before")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / name) as unfinished:
        unfinished.write_text("half")
        assert unfinished.name != name
        raise KeyboardInterrupt
    assert (tmp_path / name).read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1
    with journal(tmp_path / name, ["id"], "abc", resume=False) as book:
        book.write([["a"]], None)
    assert (tmp_path / name).read_text() == "id\na\n"


def test_a_name_that_is_too_long_is_told_at_once(crystals: Path) -> None:
    with pytest.raises(UserError, match="Cannot write --output=.*too long"):
        run("embed", *LINES["embed"][:2], f"--output={'x' * 300}.npz")


def test_a_folder_to_write_to_is_looked_for_where_the_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, link = tmp_path / "out.npz", tmp_path / "link.npz"
    link.symlink_to(tmp_path / "gone" / "out.npz")
    with pytest.raises(UserError, match="link.npz: there is no folder .*gone"):
        require_folder(link)
    require_folder(output)
    output.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="out.npz: the folder .* cannot be written"):
        require_folder(output)
    os.mkfifo(tmp_path / "pipe")
    require_folder(tmp_path / "pipe")


def test_an_output_that_nothing_can_be_predicted_for_leaves_nothing(crystals: Path) -> None:
    (crystals / "a.cif").write_text("rubbish")
    with pytest.raises(UserError, match="None of 1 input can be used"):
        run("predict", *LINES["predict"])
    assert not list(crystals.glob(".out*"))


def _stopped(output: Path, resume: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        with journal(output, ["id", "value"], "abc", resume=resume) as book:
            book.write([["a", 1.0], ["b", 2.0]], [[1, 2]])
            raise KeyboardInterrupt


def test_what_is_kept_is_told_last_and_not_thrown_away_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last line was: start the same command again, which began anew and lost the rows."""
    output = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt) as stopped:
        with journal(output, ["id"], "abc", resume=False) as book:
            book.write([["a"]], None)
            raise KeyboardInterrupt
    told = "Kept: 1 row. The same command with --resume goes on."
    assert with_notes("", stopped.value) == told
    with pytest.raises(UserError) as full, writing(output):
        with journal(output, ["id"], "abc", resume=True) as book:
            raise OSError(errno.ENOSPC, "full")
    assert with_notes("Cannot write.", full.value) == f"Cannot write.\n{told}"
    assert "begun anew" not in caplog.text
    with journal(output, ["id"], "abc", resume=False):
        assert "--resume would have gone on with its rows" in caplog.text


@pytest.mark.parametrize("damage", ["rows", "state", "count", "json", "list"])
def test_a_damaged_partial_output_is_begun_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _stopped(tmp_path / "out.csv", resume=False)
    partial = tmp_path / ".out.csv.abc.partial"
    about = tmp_path / ".out.csv.abc.partial.json"
    if damage == "rows":
        partial.write_bytes(partial.read_bytes().replace(b"1.0", b"9.0"))
    elif damage == "json":
        about.write_text('{"rows":')
    elif damage == "list":
        about.write_text("[]")
    else:
        content = json.loads(about.read_text())
        about.write_text(json.dumps(content | {"state": "x"} if damage == "state" else {"rows": 1}))
    with journal(tmp_path / "out.csv", ["id", "value"], "abc", resume=True) as book:
        assert book.rows == 0 and list(book.written()) == []
        book.write([["c", 3.0]], None)
    assert (tmp_path / "out.csv").read_text() == "id,value\nc,3.0\n"
    assert "is damaged: it is begun anew" in caplog.text
    assert os.listdir(tmp_path) == ["out.csv"]


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    with journal(tmp_path / "out.csv", ["id"], "abc", resume=False) as book:
        book.write([["a"]], None)
        with pytest.raises(UserError, match="being written by another process"):
            with journal(tmp_path / "out.csv", ["id"], "abc", resume=False):
                pytest.fail("it was opened")
    assert (tmp_path / "out.csv").read_text() == "id\na\n"


def test_only_what_other_models_left_of_the_same_output_goes(tmp_path: Path) -> None:
    kept = [".a1.csv.abc.partial", ".a[1].csv.mine.partial", ".a[1].csv.abc.partial.txt"]
    for name in [*kept, ".a[1].csv.123.partial", ".a[1].csv.123.partial.json"]:
        (tmp_path / name).write_text("x")
    with journal(tmp_path / "a[1].csv", ["id"], "abc", resume=False):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "a[1].csv"])


def test_it_is_said_why_uncertainties_are_blank(
    crystals: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = read_bundle("known")
    save_bundle("plain", bundle._replace(about=bundle.about | {"calibration": {}}))
    caplog.set_level(logging.INFO)
    run("predict", *LINES["predict"])
    assert "blank" not in caplog.text
    run("predict", "--model=plain", *LINES["predict"][1:])
    assert "The uncertainties of poly_total are blank: the model, which was trained" in caplog.text
