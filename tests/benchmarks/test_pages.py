"""Numbers in the documents are those of the committed tables that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import few_labels, pretraining, trunks
from benchmarks.few_labels import PICKED, SIZES, regret
from benchmarks.kept import find_done

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "benchmarks"
PROCESS = "Gaussian process on descriptors"
# The words of a page → those of a variant in benchmarks/trunks_development.csv.
TRUNKS = {
    "properties, 12 neighbours, 5 layers, mean of the bonds": "cogn properties",
    "properties": "cogn properties",
    "table and embedding": "cogn table+embedding",
    "properties and embedding": "cogn properties+embedding",
    "table, properties and embedding": "cogn table+properties+embedding",
    "properties, 16 neighbours": "cogn properties 16 neighbours",
    "properties, 24 neighbours": "cogn properties 24 neighbours",
    "properties, 3 layers": "cogn properties 3 layers",
    "properties, 7 layers": "cogn properties 7 layers",
    "properties, a layer norm in each block": "cogn properties layer norm",
    "properties, sums of the bonds": "cogn properties sum",
    "properties, 9,000 steps": "cogn properties 9000 steps",
    "properties, 18,000 steps": "cogn properties 18000 steps",
}
# In the table of heads names repeat, "the same" being the line above it: these in their order.
HEADS = (
    "cogn properties",
    "cogn properties linear head with descriptors",
    "cogn properties mlp head",
    "cogn properties mlp head with descriptors",
)


def words(name: str) -> str:
    """A document, its words one space apart."""
    return " ".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").split())


def table_after(name: str, start: str) -> list[dict[str, str]]:
    """The lines of the first table of a document behind a text: column → cell, as they stand."""
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert text.count(start) == 1
    rest = text[text.index(start) :]
    block = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert block
    lines = [
        [cell.strip().replace("**", "") for cell in line.strip("|\n").split("|")]
        for line in block[0].splitlines()
    ]
    return [dict(zip(["", *lines[0][1:]], line, strict=True)) for line in lines[2:]]


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d*\.\d+", cell)]


def development() -> dict[tuple[str, str, int, int], float]:
    """Variant, set, labels and trial → error on development data."""
    rows = trunks.find_done(TABLES / "trunks_development.csv")
    return {row.cell[1:]: row.mae for row in rows if row.cell.part == "development"}


def assert_cells(
    line: Mapping[str, str],
    variant: str,
    labels: int,
    errors: dict[tuple[str, str, int, int], float],
) -> None:
    """Cells hold the error of trial 1, and behind it those of the trials after it."""
    for key in ("ph", "dc", "gv", "ebg"):
        there = [errors[at] for t in (1, 2) if (at := (variant, key, labels, t)) in errors]
        assert numbers(line[key]) == pytest.approx(there, abs=0.51e-4), (variant, key, labels)


@pytest.mark.parametrize(
    ("labels", "start"),
    [(100, "100 labels, trial 1 (trial 2):"), (800, "800 labels, trial 1, 3,000")],
)
def test_what_was_tried_for_networks(labels: int, start: str) -> None:
    lines, errors = table_after("networks", start), development()
    assert len(lines) >= 8
    for line in lines:
        assert_cells(line, TRUNKS[line[""]], labels, errors)


def test_properties_alone_against_table_and_embedding() -> None:
    errors = development()
    worse, better = "cogn table+embedding", "cogn properties"
    pairs = [(errors[better, *at[1:]], mae) for at, mae in errors.items() if at[0] == worse]
    gains = [1 - ours / theirs for ours, theirs in pairs]
    assert len(gains) == 10
    least, most = (round(100 * gain) for gain in (min(gains), max(gains)))
    said = f"lower error than table and embedding in all ten comparisons, by {least} to {most} %"
    assert said in words("networks")


def test_pooled_bonds() -> None:
    errors, page = development(), words("networks")
    for key in ("ph", "gv"):
        said = re.search(rf"of {key} from (\.\d+) to (\.\d+), by (\d+) %", page)
        assert said
        without, pooled, percent = map(float, said.groups())
        variants = ("alignn table", "alignn table pool_bonds")
        found = [errors[variant, key, 800, 1] for variant in variants]
        assert [without, pooled] == pytest.approx(found, abs=0.51e-4)
        assert percent == round(100 * (1 - found[1] / found[0]))
    for variants, keys, pattern in (
        (("cogn properties",), ("ph", "gv"), r"`cogn` has (\.\d+) and (\.\d+)\."),
        (
            ("alignn table 1000 steps", "alignn table pool_bonds 1000 steps"),
            ("fe",),
            r"of fe are (\.\d+) without and (\.\d+) with pooled bonds",
        ),
    ):
        said = re.search(pattern, page)
        assert said
        found = [errors[variant, key, 800, 1] for variant in variants for key in keys]
        assert list(map(float, said.groups())) == pytest.approx(found, abs=0.51e-4)


def test_heads_with_descriptors() -> None:
    lines, errors = table_after("few_labels", "## Descriptors and networks together"), development()
    for line, variant in zip(lines, HEADS, strict=False):
        assert_cells(line, variant, 100, errors)


def test_what_the_network_that_ships_gains() -> None:
    lines = table_after("networks", "What it gains with 100 dielectric constants")
    found = {
        (row.strategy, row.trial): row.mae_scaled
        for row in find_done(TABLES / "pretraining_development.csv", pretraining.Row)
        if row.variant == "no_dielectric"
    }
    named = {
        "`no_dielectric`, all layers fine-tuned": "all_layers",
        "Gaussian process on its vectors": "gaussian_process_vectors",
        "Gaussian process on its vectors and the descriptors": "gaussian_process",
    }
    strategies = {named[line[""]]: line for line in lines if line[""] in named}
    assert len(strategies) == len(named)
    for strategy, line in strategies.items():
        for trial in (1, 2, 3):
            mae = [found[strategy, trial]] if (strategy, trial) in found else []
            assert numbers(line[f"trial {trial}"]) == pytest.approx(mae, abs=0.51e-4)
    errors = development()
    (scratch,) = (line for line in lines if line[""] == "network from random weights")
    cells = [numbers(scratch[f"trial {t}"]) for t in (1, 2)]
    expected = [[errors["cogn properties", "dc", 100, t]] for t in (1, 2)]
    np.testing.assert_allclose(cells, expected, atol=0.51e-4)
    # And the means of the two processes with descriptors.
    (alone,) = (line for line in lines if line[""] == PROCESS)
    both = [found["gaussian_process", trial] for trial in (1, 2, 3)]
    means = [np.mean([numbers(alone[f"trial {t}"])[0] for t in (1, 2, 3)]), np.mean(both)]
    said = " and ".join(f"{mean:.4f}".lstrip("0") for mean in means)
    assert f"means {said}" in words("networks")


def choices(name: str = "few_labels") -> list[few_labels.Row]:
    return find_done(TABLES / f"{name}.csv", few_labels.Row)


@pytest.mark.parametrize("name", ["few_labels", "few_labels_first"])
def test_intervals_on_the_published_test_parts(name: str) -> None:
    lines = {line[""]: line for line in table_after("intervals", "## On the published test parts")}
    suffix = ", first run" if name.endswith("first") else ""
    rows = [row for row in choices(name) if row.candidate == PICKED]
    for column in [name for name in next(iter(lines.values())) if name]:
        key, labels = column.split()
        own = [row for row in rows if (row.set, row.size) == (key, int(labels))]
        coverage, score, constant, correlation = np.mean(
            [(row.coverage, row.score, row.constant_score, row.spearman) for row in own], axis=0
        )
        expected = {"coverage": coverage, "score": score / constant, "correlation": correlation}
        for what, value in expected.items():
            assert numbers(lines[what + suffix][column]) == pytest.approx([value], abs=0.51e-3)


def test_regret_of_choices() -> None:
    rows, page = choices(), words("few_labels")
    for row, candidate in (("is on average {:.1f} %", PICKED), ("would cost {:.1f} %", PROCESS)):
        assert row.format(100 * regret(rows, candidate)) in page
    for labels, text in ((10, "With 10 labels the numbers are"), (800, "with 800 labels")):
        own = [row for row in rows if row.size == labels]
        picked, process = (round(100 * regret(own, of)) for of in (PICKED, PROCESS))
        assert f"{text} {picked} and {process} %" in page


def test_expected_errors_of_choices() -> None:
    picked, page = [row for row in choices() if row.candidate == PICKED], words("few_labels")
    held = {size: [0, 0] for size in SIZES}
    for row in picked:
        within = abs(row.mae - row.expected) <= 2 * row.expected_error
        assert within or row.mae > row.expected  # "the expected error was too low"
        held[row.size][0] += within
        held[row.size][1] += within and row.set != "pz"
    (ten, ten_four), (hundred, hundred_four), (two, two_four), (most, most_four) = held.values()
    assert most == 25
    said = f"{ten} of 25 test errors with 10 labels, {hundred} of 25 with 100, {two} of 25 with 200"
    assert f"{said} and all with 800" in page
    said = f"without pz {ten_four}, {hundred_four}, {two_four} and {most_four} of 20"
    assert said in page
