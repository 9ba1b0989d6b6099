"""The command as it is installed: it lists its verbs, and each lists its own flags."""

from __future__ import annotations

import importlib
import sys

import pytest

from jaxmat import __version__
from jaxmat.commands import main as program
from jaxmat.commands.command import execute
from jaxmat.commands.main import VERBS, main
from jaxmat.runtime.stopping import STOPPED


def jaxmat(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["jaxmat", *arguments])
    main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_alone_it_lists_the_verbs(monkeypatch, capsys, arguments):
    jaxmat(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    for verb in VERBS:
        (line,) = [line for line in lines if line.startswith(f"  {verb} ")]
        doc = importlib.import_module(f"jaxmat.commands.{verb}").__doc__
        assert line.removeprefix(f"  {verb}").strip() == doc.splitlines()[0]


def test_it_knows_its_version(monkeypatch, capsys):
    jaxmat(monkeypatch, "--version")
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("verb", "hint"), [("predcit", "did you mean predict?"), ("dance", "use train, finetune, ")]
)
def test_an_unknown_verb_gets_the_nearest_one(monkeypatch, capsys, verb, hint):
    with pytest.raises(SystemExit) as end:
        jaxmat(monkeypatch, verb)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: jaxmat has no verb {verb!r}; {hint}" + (
        ", ".join(VERBS[2:]) + ".\n" if hint.startswith("use") else "\n"
    )


def test_a_verb_gets_the_rest_of_the_line(monkeypatch):
    started = []
    monkeypatch.setattr(program, "start", lambda *given: started.append(given))
    jaxmat(monkeypatch, "predict", "--model=x")
    assert started == [("predict", ["jaxmat predict", "--model=x"])]


def test_an_interrupt_while_modules_are_imported_is_no_traceback(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "restart_with_allocator", lambda: None)
    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(SystemExit) as end:
        jaxmat(monkeypatch, "predict", "--model=x")
    assert end.value.code == STOPPED
    assert capsys.readouterr().err == "Stopped by SIGINT before anything was begun.\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_the_flags_of_the_verb_alone(verb, capsys):
    command = importlib.import_module(f"jaxmat.commands.{verb}").COMMAND
    assert execute(command, [f"jaxmat {verb}", "--workdir=x", "--help"]) is None
    said = capsys.readouterr().out
    assert said.startswith(command.help.splitlines()[0]) and f"jaxmat {verb}" in said
    flags = {line.strip() for line in said.partition("\nFlags:\n")[2].splitlines()}
    trains = "--workdir" in flags
    assert trains == (verb in ("train", "finetune", "choose", "evaluate", "study"))
    assert ("--print_config" in flags) == trains
    assert ("--start_from" in flags) == (verb in ("finetune", "choose"))
    asks = ("evaluate", "predict", "embed", "suggest")
    assert ("--model" in flags) == (verb in asks)
    assert ("--distributed" in flags) == (verb in ("train", "finetune"))
    # Every command line in a help stands out.
    assert f"\n    jaxmat {verb} " in said
    assert ("Flags:" in said) == (verb != "inspect")
    words = " ".join(said.split())
    # A name stands wherever a model does, but none of these can suggest.
    if "--model" in flags:
        assert ("(all_six, no_dielectric)" in words) == (verb != "suggest")
    assert ("Column of the labels" in words) == (trains and verb != "study")
    # The others refuse several columns.
    assert ("Several, separated by commas, are learned at once." in words) == (verb == "train")
    # choose takes several models, and said that it takes one.
    assert ("Models to start from, separated by commas" in words) == (verb == "choose")
