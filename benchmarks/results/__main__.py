"""Makes the page of results from the table of results.

    python -m benchmarks.results --csv=docs/results.csv --page=docs/results.md

Results that another command has left are added to the table first, where they are named:

    ... --add=few_labels.csv --command="python -m benchmarks.few_labels ..." --commit=8c929b8

FILE of --add is the CSV of benchmarks.few_labels, benchmarks.trunks or benchmarks.peers,
results.csv of a study (--item=multi_property or --item=reproduction), or result.json of the quick
start or of Matbench. The commit is that whose code the command ran, not a later one. --check writes
nothing: exit code 1 where the page is not what the table makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from benchmarks.published import read_marks
from benchmarks.results.converted import Origin, convert
from benchmarks.results.page import WORDS, make_page
from benchmarks.results.rows import add_rows, read_results, write_results
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.errors import UserError
from jaxmat.runtime.files import whole_file


def main(argv: list[str]) -> None:
    """Adds rows, where there are some to add, and makes the page."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    table, place = Path(values.csv), Path(values.page)
    rows = read_results(table)
    if values.add:
        if not values.command or not values.commit:
            raise UserError("Rows name what made them: give --command and --commit.")
        origin = Origin(values.item, values.command, values.commit)
        rows = add_rows(rows, convert(Path(values.add), origin))
    page = make_page(rows, read_marks(), WORDS.read_text(encoding="utf-8"))
    if values.check:
        if not place.exists() or place.read_text(encoding="utf-8") != page:
            print(f"{place} is not what {table} makes; run this without --check.")
            sys.exit(1)
        return
    if values.add:
        write_results(table, rows)
    with whole_file(place) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    print(f"{place}: {len(rows)} rows")


def _define_flags() -> None:
    flags.DEFINE_string("csv", "docs/results.csv", "Table of results.")
    flags.DEFINE_string("page", "docs/results.md", "Page to write.")
    flags.DEFINE_string("add", "", "File of another command with results to add.")
    flags.DEFINE_string("command", "", "That made it; DIR and FILE for folders and files.")
    flags.DEFINE_string("commit", "", "That the command ran on.")
    flags.DEFINE_string("item", "", "Question that the results belong to, if not the usual one.")
    flags.DEFINE_bool("check", False, "Write nothing, only compare the page.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
