"""The intervals of what choices picked, on crystals of the pools: what they were developed on.

    python -m benchmarks.intervals --data=FOLDER --runs=DIR

DIR is what `benchmarks.few_labels` wrote as --workdir. What was picked in each of its choices
predicts up to 500 crystals that are neither among the labels of the trial nor in the test part;
crystals with elements that it refuses are left out. Prints, for each set and number of labels,
means over trials. To judge another way of making intervals, remove the result.json of choices and
let `benchmarks.few_labels` finish them anew: nothing is trained again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.few_labels import SETS, SIZES, TRIALS, constant_ends, judge
from benchmarks.trunks import development_split
from jaxmat.bundles.bundle import CHOSEN
from jaxmat.bundles.means import read_mean
from jaxmat.bundles.predict import predict
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.tables import Table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.samples import read_samples
from jaxmat.experiments.study.tables import find_tables, read_table
from jaxmat.report.predictions import Prediction
from jaxmat.report.tables import format_table


def main(argv: list[str]) -> None:
    """Judges every finished choice there is."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    tables, settings = find_tables(values.data), defaults.data()
    found = defaultdict(list)
    for name in SETS:
        samples = read_samples(tables[name], settings)
        labelled = read_table(tables[name], settings)
        labels = dict(zip(labelled.table.ids, labelled.labels[:, 0].tolist(), strict=True))
        for size in SIZES:
            for trial in TRIALS:
                final = Path(values.runs) / f"{name}_{size}_{trial}" / "choice" / CHOSEN
                if (final / "predictions.csv").exists():
                    ids = development_split(samples, size, trial)["test"]
                    rows = predict_some(final, labelled.table, ids, labels)
                    mean = "mean" if read_mean(final) else "one model"
                    found[name, size, mean].append(judge(rows, constant_ends(final, rows)))
    if not found:
        raise UserError(f"{values.runs} has no finished choice of benchmarks.few_labels.")
    print(format_table([summarize(*key, judged) for key, judged in found.items()]))


def predict_some(
    model: Path, table: Table, ids: Sequence[str], labels: dict[str, float]
) -> list[Prediction]:
    """Returns what a model says of crystals of a table, but for those that it refuses."""
    places = {id: i for i, id in enumerate(table.ids)}
    rows = zip(ids, predict(model, [table.structures[places[id]] for id in ids]), strict=True)
    return [
        Prediction(id, "test", labels[id], row.prediction, row.unit, row.low, row.high)
        for id, row in rows
        if not row.reason
    ]


def summarize(
    name: str, size: int, picked: str, judged: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Returns a line of the table; scores are relative to one half width for all."""
    score, constant, coverage, correlation = (
        float(np.mean([one[key] for one in judged]))
        for key in ("score", "constant_score", "coverage", "spearman")
    )
    return {
        "set": name,
        "labels": size,
        "picked": picked,
        "trials": len(judged),
        "coverage": coverage,
        "score": score / constant,
        "correlation": correlation,
    }


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_string("runs", None, "Folder of runs of benchmarks.few_labels.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
