"""The page of results: made from its table alone, of rows that name what made them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import few_labels, peers, trunks
from benchmarks.few_labels import CONSTANT, PICKED
from benchmarks.kept import add_done
from benchmarks.published import KINDS, OF_ANY, SCRATCH, Mark, read_marks
from benchmarks.results.claims import (
    compare,
)
from benchmarks.results.converted import PICKED_SOURCE, convert
from benchmarks.results.page import (
    WORDS,
    aims,
    errors,
    make_page,
    missing,
    picks,
)
from benchmarks.results.plan import (
    AIMS,
    COMPARISONS,
    ELSEWHERE,
    MEAN_OF_THREE,
    SAVINGS,
    TUNED,
    TUNED_MEAN,
    WANTED,
)
from benchmarks.results.rows import add_rows, read_results, scaled, write_results
from jaxmat.errors import UserError
from jaxmat.experiments.study.cells import ALL
from jaxmat.report.study.published import HALF_RANGES
from jaxmat.report.study.results import CellResult

from .results_cases import ORIGIN, of_trials, result

ROOT = Path(__file__).parents[2]
TABLE, PAGE = ROOT / "docs" / "results.csv", ROOT / "docs" / "results.md"


def test_the_page_is_what_the_table_makes() -> None:
    words = WORDS.read_text(encoding="utf-8")
    page = make_page(read_results(TABLE), read_marks(), words)
    assert PAGE.read_text(encoding="utf-8") == page, "run python -m benchmarks.results"


def test_the_readme_says_what_the_quick_start_gave() -> None:
    maes: dict[str, list[float]] = {}
    for row in read_results(TABLE):
        if row.item == "quickstart":
            maes.setdefault(row.method, []).append(row.mae)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(maes) == 4
    for found in maes.values():
        assert f"| {np.mean(found):.2f} ± {np.std(found, ddof=1):.2f} |" in readme


def test_the_readme_says_what_matbench_gave() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [row for row in read_results(TABLE) if row.item == "matbench"]
    for method in (TUNED, TUNED_MEAN, MEAN_OF_THREE):
        found = [row.mae for row in rows if row.method == method]
        assert len(found) == 5
        assert f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}" in readme
    elsewhere = ELSEWHERE["matbench_phonons", 1012]
    assert all(f"{mae:.1f}" in readme for of, mae in elsewhere.items() if "record" not in of)


def test_the_readme_says_which_claims_about_choices_hold() -> None:
    found = compare(read_results(TABLE), COMPARISONS, read_marks())
    holds = {
        (c.target, c.labels, c.verdict)
        for c in found
        if c.comparison[1:3] == (PICKED, OF_ANY) and c.verdict in ("better", "worse")
    }
    assert holds == {("ph", 100, "better"), ("gv", 200, "better")}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "phonons with 100 labels and shear moduli with 200, both in favour of `choose`" in readme


def test_the_readme_says_what_choices_gave() -> None:
    errors: dict[tuple[int, str], list[float]] = {}
    for row in read_results(TABLE):
        if (row.item, row.method) == ("few_labels", "picked"):
            errors.setdefault((row.labels, row.target), []).append(row.scaled_mae)
    readme, marks = (ROOT / "README.md").read_text(encoding="utf-8"), read_marks()
    for labels in (10, 100, 200, 800):
        cells = [
            f"{np.mean(errors[labels, target]):.3f} ({marks[target, labels, OF_ANY].mean:.3f})"
            for target in ("ph", "dc", "gv", "ebg")
        ]
        assert f"| {labels} | {' | '.join(cells)} |" in readme


def test_every_commit_of_the_table_is_in_the_history() -> None:
    def git(*arguments: str, text: str = "") -> str:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("no repository with its history")
    commits = sorted({row.commit for row in read_results(TABLE)})
    kinds = git("cat-file", "--batch-check=%(objecttype)", text="\n".join(commits) + "\n")
    assert dict(zip(commits, kinds.splitlines(), strict=True)) == dict.fromkeys(commits, "commit")


def test_methods_that_are_asked_for_are_written_as_in_the_table() -> None:
    """A typing error would drop a claim without a word."""
    methods = {(row.item, row.method) for row in read_results(TABLE)}
    asked = (*COMPARISONS, *SAVINGS)
    assert {item for item, _ in methods} <= {one.item for one in (*WANTED, *asked)}
    named = {(one.item, method) for one in asked for method in (one.method, one.baseline)}
    named |= {(item, aim.method) for aim in AIMS if aim.method for item in aim.items}
    known = methods | {(one.item, one.method) for one in WANTED}
    assert [one for one in sorted(named - known) if one[1] not in KINDS] == []
    # And what is to be run is called as rows of its item are, where there are any of it.
    unheard = {one.method for one in WANTED} - {method for _, method in methods}
    assert unheard <= {
        "alignn properties from random weights",
        "all_layers from pz 941, published, rate 0.001",
    }


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"command": " "}, "line 3: command is blank"),
        ({"commit": ""}, "line 3: commit is blank"),
        ({"commit": "main"}, "line 3: commit 'main' is none"),
        ({"mae": math.nan}, "line 3: mae is no error"),
        ({"mae": -1.0}, "line 3: mae is no error"),
        ({"unit": "eV"}, "line 3: unit of dc is 'eV', not '1'"),
        ({"scaled_mae": 0.5}, "line 3: scaled_mae is 0.5, not 0.029"),
        ({"scaled_mae": math.nan}, "line 3: scaled_mae is nan"),
        ({"trial": 1, "mae": 5.0}, "dc 100 ours 1 stands there 2 times"),
    ],
)
def test_rows_that_say_too_little_are_refused(
    tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    rows = [result(), result(**{"trial": 2, **fields})]
    write_results(tmp_path / "rows.csv", rows)
    with pytest.raises(UserError, match=r"rows that are not results") as error:
        read_results(tmp_path / "rows.csv")
    assert problem in str(error.value)
    with pytest.raises(UserError, match="cannot be added"):
        add_rows(rows[:1], rows[1:])


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [result(), result(trial=None, seed=3, seconds=2.5), result(target="pz", mae=1.0)]
    write_results(tmp_path / "rows.csv", rows)
    assert repr(read_results(tmp_path / "rows.csv")) == repr(rows)  # NaN is not itself


def test_rows_that_are_there_are_not_added_again() -> None:
    rows = of_trials([4.0, 5.0])
    assert add_rows(rows, of_trials([4.0, 5.0, 6.0])) == of_trials([4.0, 5.0, 6.0])


def test_words_and_rows_have_to_fit() -> None:
    rows = [result(item="unheard")]
    with pytest.raises(UserError, match="item 'unheard' have no place"):
        make_page(rows, {}, "{{ errors few_labels }}\n")
    with pytest.raises(UserError, match="no block 'errrors'"):
        make_page([], {}, "{{ errrors few_labels }}\n")


def test_what_was_picked_stands_beside_the_published_error() -> None:
    marks = {("dc", 100, OF_ANY): Mark("fe 100000", {1: 0.04, 2: 0.05})}
    rows = [*of_trials([4.0, 6.0], method="picked"), *of_trials([1.0, 1.0], method="best")]
    table = picks(rows, marks)
    assert "100 labels" in table and f"{scaled('dc', 5.0):.4f} (0.0450)" in table
    assert "best" not in table and picks([], {}).startswith("Nothing")


def test_a_table_shows_mean_and_spread_beside_the_published_errors() -> None:
    page = errors(of_trials([3.0, 5.0]), read_marks()).splitlines()
    cells = [cell.strip() for cell in page[2].split("|")]
    assert "4.0 ± 1.4" in cells and "0.029 ± 0.010" in cells and "0.03416 (5)" in cells
    assert "time" not in page[0]  # of which nothing is known
    # A mean over another number of trials says so.
    assert cells[-2].endswith("(5)")
    marks = {("dc", 100, SCRATCH): Mark("", {1: 0.05, 2: 0.06})}
    assert "0.05500 |" in errors(of_trials([3.0, 5.0]), marks)
    assert "0.05500 (2)" in errors(of_trials([3.0, 5.0, 4.0]), marks)


def test_an_aim_is_held_against_all_trials() -> None:
    aim = next(aim for aim in AIMS if aim.target == "dc" and aim.labels == 100)
    good = aim.error * HALF_RANGES["dc"][0] * 0.9

    def line(n: int, factor: float = 1.0) -> str:
        page = aims(of_trials([good * factor] * n), read_marks())
        (found,) = [text for text in page.splitlines() if "ours" in text]
        return found

    assert "| yes" in line(5) and "| no" in line(5, 2.0) and "open: 2 of 5" in line(2)


def test_cells_that_were_not_run_are_listed_with_their_cost() -> None:
    wanted = next(one for one in WANTED if one.item == "trunks" and one.labels == (100,))
    everything = [
        result(item=wanted.item, method=wanted.method, target=t, labels=n, trial=d)
        for t, n, d in wanted.missing([])
    ]
    assert len(everything) == wanted.number and wanted.missing(everything) == []
    # A trial whose lists were not released is not asked for.
    assert {cell[2] for cell in wanted.cells if cell[0] == "ph"} == {1, 2, 3, 4}
    page = missing(everything[:-2])
    (line,) = [
        text for text in page.splitlines() if f"| {wanted.method} " in text and "100" in text
    ]
    assert f"2 of {wanted.number} " in line and "ebg 100 (trials 4, 5)" in line
    assert f"{2 * wanted.minutes / 60:.1f}" in line


def test_results_of_other_commands_are_converted(tmp_path: Path) -> None:
    def few(candidate: str, mae: float, trial: int) -> few_labels.Row:
        return few_labels.Row(
            *("dc", 100, trial, candidate, "", mae, mae / 137.85, *[math.nan] * 8), seconds=2.5
        )

    process = "Gaussian process on descriptors"
    start = "gaussian_process from /somewhere/models/dc"
    candidates = [(process, 4.0), (start, 3.0), (CONSTANT, 5.0), (PICKED, 3.0)]
    rows = [few(name, mae, 1) for name, mae in candidates]
    alone = [few(name, 4.0, 2) for name in (process, CONSTANT, PICKED)]
    add_done(tmp_path / "few.csv", rows + alone)
    found = convert(tmp_path / "few.csv", ORIGIN)
    named = [process, "gaussian_process from all but the target", CONSTANT, PICKED]
    # What is picked from one candidate is not shown.
    assert [row.method for row in found] == [*named, process, CONSTANT]
    assert found[0] == result(method=process, seconds=2.5)

    for part, trial in (("development", 1), ("test", 2)):
        cell = trunks.Cell(part, "cogn properties", "dc", 100, trial)
        trunks.add_row(tmp_path / "trunks.csv", trunks.Row(cell, 106, 0.02, 0.03, 1000, 20.5))
    (row,) = convert(tmp_path / "trunks.csv", ORIGIN)
    assert (row.item, row.method) == ("trunks", "cogn properties from random weights")
    assert row.scaled_mae == pytest.approx(0.02) and (row.trial, row.seed) == (2, 2)

    add_done(
        tmp_path / "peers.csv", [peers.Row("ph", 100, 1, "random forest", 127, 90.0, 3.0, 5.0)]
    )
    (row,) = convert(tmp_path / "peers.csv", ORIGIN)
    assert (row.item, row.unit, row.seconds) == ("peers", "1/cm", 5.0)

    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not those of a benchmark"):
        convert(tmp_path / "other.csv", ORIGIN)


def test_results_of_studies_are_converted(tmp_path: Path) -> None:
    cell = CellResult(
        *("a", "finetune", "pz", 941, "dc", 100, "all_layers", "published", 1e-3, 1, "done"),
        *("poly_total", "1", 90, 10, 106, 4.0, 5.0, 0.5, 0.03, 0.5, 3.0, 0.02, 5.25, 12.0, "."),
        gaussian_process_test_mae=4.5,
    )
    scratch = cell._replace(kind="scratch", source="", source_size=None, strategy="")
    failed = cell._replace(trial=2, status="failed", test_mae=math.nan)
    add_done(tmp_path / "results.csv", [cell, scratch, failed])
    with pytest.raises(UserError, match="--item"):
        convert(tmp_path / "results.csv", ORIGIN)
    rows = convert(tmp_path / "results.csv", ORIGIN._replace(item="reproduction"))
    assert {row.method: row.mae for row in rows} == {
        CONSTANT: 5.25,
        "Gaussian process on descriptors": 4.5,
        "all_layers from pz 941, published, rate 0.001": 4.0,
        "random weights, published, rate 0.001": 4.0,
    }
    assert len(rows) == 4 and {row.item for row in rows} == {"reproduction"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [(("0.25", "a quarter"), "line 2: test_mae 'a quarter'"), (("cell", "\xff"), "cannot be read")],
)
def test_results_that_were_edited_are_refused_by_line(
    tmp_path: Path, edit: tuple[str, str], message: str
) -> None:
    cells = dict.fromkeys(CellResult._fields, "1") | {"test_mae": "0.25"}
    file = tmp_path / "results.csv"
    text = f"{','.join(cells)}\n{','.join(cells.values())}\n".replace(*edit, 1)
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=f"results.csv.*(\n.*)?{message}"):
        convert(file, ORIGIN._replace(item="multi_property"))


def test_the_source_that_validation_picks_is_a_method(tmp_path: Path) -> None:
    """Among sources of one property, for each seed apart."""
    cell = CellResult(
        *("a", "finetune", "pz", 941, "dc", 100, "all_layers", "sound", 1e-3, 1, "done"),
        *("poly_total", "1", 90, 10, 106, 4.0, 5.0, 0.5, 0.03, 0.5, 3.0, 0.02, 5.25, 12.0, "."),
    )
    cells = [
        cell._replace(source=source, seed=seed, validation_mae=validation, test_mae=test)
        for seed, source, validation, test in (
            *((0, "pz", 2.0, 4.0), (0, "fe", 3.0, 3.5), (0, ALL, 1.0, 3.0)),
            *((1, "pz", 2.5, 4.5), (1, "fe", 2.0, 5.0), (1, ALL, 9.0, 9.0)),
        )
    ]
    add_done(tmp_path / "results.csv", cells)
    rows = convert(tmp_path / "results.csv", ORIGIN._replace(item="multi_property"))
    picked = f"all_layers from {PICKED_SOURCE}, sound, rate 0.001"
    assert {row.seed: row.mae for row in rows if row.method == picked} == {0: 4.0, 1: 5.0}


def test_results_of_runs_are_converted(tmp_path: Path) -> None:
    maes = {"constant": [9.0, 8.0], "gaussian_process": [5.0, 6.0]}
    maes |= {"scratch": [7.0, 7.5], "finetuned": [4.0, 4.5]}
    crystals = {"train": 300, "validation": 150, "test": 500}
    quick = {"unit": "1", "seeds": [0, 1], "crystals": crystals, "test_mae_by_seed": maes}
    (tmp_path / "quick.json").write_text(json.dumps(quick))
    rows = convert(tmp_path / "quick.json", ORIGIN)
    assert len(rows) == 8 and {row.labels for row in rows} == {450}
    assert [row.mae for row in rows if row.seed == 1] == [8.0, 7.5, 6.0, 4.5]

    for fold in range(5):
        (tmp_path / f"fold_{fold}").mkdir()
        found: dict[str, Any] = {
            "test_mae": 30.0 + fold,
            "gaussian_process_test_mae": 33.0,
            "seconds": 1.0,
        }
        (tmp_path / f"fold_{fold}" / "result.json").write_text(json.dumps(found))
    maes = [30.0, 31.0, 32.0, 33.0, 34.0]
    whole = {"unit": "1/cm", "crystals": {"test": 1265}, "test_mae_by_fold": maes}
    (tmp_path / "result.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="names its task"):
        convert(tmp_path / "result.json", ORIGIN)
    origin = ORIGIN._replace(command="jaxmat train --config.task=matbench_phonons")
    rows = convert(tmp_path / "result.json", origin)
    assert len(rows) == 10 and {row.labels for row in rows} == {1012}
    assert [row.mae for row in rows if row.seed == 0] == maes

    for fold in range(5):
        found = {"test_mae": 35.0, "seconds": 4.0}
        (tmp_path / f"fold_{fold}" / "result.json").write_text(json.dumps(found))
    (tmp_path / "result.json").write_text(json.dumps(whole | {"networks": 2}))
    rows = convert(tmp_path / "result.json", origin)
    assert [(row.method, row.mae) for row in rows] == [("mean of two networks", m) for m in maes]
    moved = whole | {"networks": 2, "strategy": "all_layers"}
    (tmp_path / "result.json").write_text(json.dumps(moved))
    (method,) = {row.method for row in convert(tmp_path / "result.json", origin)}
    assert method == "mean of two networks, transferred"
    (tmp_path / "result.json").write_text(json.dumps(whole | {"strategy": "all_layers"}))
    (method,) = {row.method for row in convert(tmp_path / "result.json", origin)}
    assert method == "all_layers from all but the target"
    (tmp_path / "nothing.json").write_text("{}")
    with pytest.raises(UserError, match="neither of Matbench nor"):
        convert(tmp_path / "nothing.json", ORIGIN)


@pytest.mark.slow
def test_the_command_adds_rows_and_makes_the_page(tmp_path: Path) -> None:
    table, page, more = (tmp_path / name for name in ("rows.csv", "page.md", "peers.csv"))
    table.write_bytes(TABLE.read_bytes())
    page.write_bytes(PAGE.read_bytes())
    add_done(more, [peers.Row("gv", 100, 1, "random forest on Magpie features", 9, 0.2, 3.0, 5.0)])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.results", f"--csv={table}", f"--page={page}"]
        return subprocess.run(
            [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )

    assert run(f"--add={more}", "--command=x", "--commit=0123abc").returncode == 0
    assert read_results(table)[-1].target == "gv"
    assert "random forest on Magpie features" in page.read_text(encoding="utf-8")
    page.write_text("typed by hand")
    assert run("--check").returncode == 1
