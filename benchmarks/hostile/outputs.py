"""What is written: names, units and ids of others do no harm, and what was there stays."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.hostile.models import _bundle, save_somewhere
from benchmarks.hostile.trial import Trial, Wrong
from jaxmat.bundles.bundle import save_bundle
from jaxmat.commands.output import refuse_overwriting, require_folder
from jaxmat.errors import UserError
from jaxmat.report.model_card import model_card
from jaxmat.report.plots import learning_curves, parity_plot
from jaxmat.report.predictions import prediction_rows, read_predictions, write_predictions
from jaxmat.report.tables import format_table
from jaxmat.runtime.files import to_json, whole_file, write_json

_TEXTS = [
    *('=HYPERLINK("http://x")', "+1+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1"),
    *("a\nb", "\x1b[2J\x1b[31m", "\x00", "\u202egnp.exe", "a,b;c\td", '"', "'", "|x|", "$x$", "$"),
    *(
        r"\frac{",
        "${$",
        "%s{}",
        "<script>",
        "../../x",
        "caf\udce9.cif",
        "漢字",
        "x" * 5000,
        " ",
        "-1",
    ),
]
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def outputs() -> Iterator[Trial]:
    """Yields trials of outputs."""
    for text in _TEXTS:
        yield Trial(f"id {text!r:.30}", _as_id(text))
        if text.strip():
            yield Trial(f"unit {text!r:.30}", _as_unit(text))
    yield from _places()


def _as_id(text: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        numbers = np.array([1.5])
        rows = prediction_rows([text], "test", numbers, numbers, "eV", interval=(numbers, numbers))
        write_predictions(folder / "p.csv", rows)
        written = (folder / "p.csv").read_bytes().decode("utf-8", "surrogateescape")
        cell = written.splitlines()[1].lstrip('"')
        if _CONTROL.search(written) or (cell.startswith(("=", "@", "+", "-")) and text != "-1"):
            raise Wrong(f"a spreadsheet or terminal would run {cell!r:.50}")
        if [row.id for row in read_predictions(folder / "p.csv")] != [text]:
            raise Wrong("another id is read back")
        if _CONTROL.search(format_table([{"id": text}])):
            raise Wrong("control characters in a table")
        to_json({text: text}).encode()

    return attempt


def _as_unit(text: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        numbers = np.array([1.0, 2.0, 3.0])
        parity_plot(folder / "a.png", {text: (numbers, numbers + 0.1)}, text, text)
        curve = {text: (numbers, numbers)}
        learning_curves(folder / "b.png", curve, text, text, baseline=(text, 1.0))
        bundle = _bundle()
        (name,) = bundle.model.transforms
        transform = dataclasses.replace(bundle.model.transforms[name], unit=text)
        model = dataclasses.replace(bundle.model, transforms={name: transform})
        if _CONTROL.search(card := model_card(model, bundle.about | {"source": text})):
            raise Wrong(f"control characters in a model card: {card!r:.200}")
        save_bundle(folder / "model", bundle._replace(model=model))

    return attempt


def _places() -> Iterator[Trial]:
    def foreign(folder: Path) -> None:
        (folder / "thesis.tex").write_text("mine")
        try:
            save_somewhere(folder)
        finally:
            if os.listdir(folder) != ["thesis.tex"]:
                raise Wrong("something was written there")

    def unfinished(folder: Path) -> None:
        (folder / "model.unfinished").mkdir()
        (folder / "model.unfinished" / "thesis.tex").write_text("mine")
        save_somewhere(folder / "model")
        if not (folder / "model.unfinished" / "thesis.tex").exists():
            raise Wrong("a folder of the user is gone")

    def in_a_file(folder: Path) -> None:
        (folder / "file").touch()
        save_somewhere(folder / "file" / "model")

    def on_a_file(folder: Path) -> None:
        (folder / "file").write_text("mine")
        try:
            save_somewhere(folder / "file")
        finally:
            if (folder / "file").read_text() != "mine":
                raise Wrong("it was written over")

    def input_itself(folder: Path) -> None:
        (folder / "a.csv").write_text("file,gap\n")
        (folder / "link.csv").symlink_to(folder / "a.csv")
        for name in ("a.csv", "link.csv", "./a.csv"):
            _expect_refusal(folder / name, [folder / "a.csv"])

    def structure(folder: Path) -> None:
        (folder / "a.cif").write_text("data_x")
        _expect_refusal(folder / "a.cif", [folder])

    def nowhere(folder: Path) -> None:
        require_folder(folder / "no" / "p.csv")

    def half_written(folder: Path) -> None:
        write_json(folder / "a.json", {"a": 1})
        for error in (KeyboardInterrupt, OSError):
            try:
                with whole_file(folder / "a.json") as file:
                    file.write_text("half")
                    raise error
            except error:
                pass
        if os.listdir(folder) != ["a.json"] or "1" not in (folder / "a.json").read_text():
            raise Wrong("half a file is left")

    yield Trial("a bundle among other files", foreign)
    yield Trial("a bundle beside a folder of its temporary name", unfinished)
    yield Trial("a bundle within a file", in_a_file)
    yield Trial("a bundle in place of a file", on_a_file)
    yield Trial("an output that is the input", input_itself)
    yield Trial("an output that is a structure", structure)
    yield Trial("an output in no folder", nowhere)
    yield Trial("an output that is interrupted", half_written)


def _expect_refusal(output: Path, inputs: list[Path]) -> None:
    try:
        refuse_overwriting(output, inputs, lambda start: False)
    except UserError:
        return
    raise Wrong("an input would be lost")
