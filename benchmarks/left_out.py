"""Whether intervals hold for elements that no training crystal held.

    python -m benchmarks.left_out --data=FOLDER --csv=FILE

FOLDER holds tables and splits of the form that `jaxmat.experiments.study.tables.find_tables` reads.
Of each set some elements are drawn, and all crystals that hold one are taken away; a model is
trained on drawn labels of the others, with other elements left out of trainings in turn
(`leave_out_elements`), and asked about what was taken away. Test crystals of the published splits
take no part. Its row is added to the file at once; those that are there are passed over.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.kept import add_done, find_done
from jaxmat.bundles.bundle import load, save_bundle
from jaxmat.bundles.predict import predict
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.experiments import carry_out, defaults
from jaxmat.experiments.study.samples import Samples, read_samples
from jaxmat.experiments.study.tables import find_tables, read_table
from jaxmat.report.tables import format_table

# Elements taken away, from those that this share of the crystals hold.
_TAKEN, _SHARES = 6, (0.01, 0.08)
_LEFT_OUT = "20"  # elements left out of trainings
_VALIDATION, _TEST = 30, 100


class Row(NamedTuple):
    """What became of one model; errors are in the unit.

    Attributes:
        model: "process" or "cogn".
        set: key of the table.
        labels: trained and validated on.
        draw: seed of the elements and labels.
        elements: taken away.
        crystals: with one of them.
        mae: on these.
        other_mae: on test crystals without them.
        inside: share of the crystals with them whose label lies in its interval.
        inside_unwidened: the same with intervals as they are for other crystals.
        widening: by how much they are wider.
    """

    model: str
    set: str
    labels: int
    draw: int
    elements: str
    crystals: int
    mae: float
    other_mae: float
    inside: float
    inside_unwidened: float
    widening: float


def run_one(model: str, samples: Samples, labels: int, draw: int) -> Row:
    """Trains a model without some elements, and asks it about them.

    Args:
        model: "process", a Gaussian process on descriptors, or "cogn".
        samples: of a set.
        labels: to train and to validate on.
        draw: seed of all that is drawn.
    """
    labelled = read_table(samples.table, defaults.study("").data)
    pool = set(samples.pool)
    rows = [i for i, id in enumerate(labelled.table.ids) if id in pool]
    held = {i: {e.symbol for e in labelled.table.structures[i].elements} for i in rows}
    counts = Counter(symbol for symbols in held.values() for symbol in symbols)
    least, most = (share * len(rows) for share in _SHARES)
    rng = np.random.RandomState(draw)
    fit = sorted(symbol for symbol, count in counts.items() if least <= count <= most)
    taken = sorted(rng.permutation(fit)[:_TAKEN].tolist())
    asked = [i for i in rows if held[i] & set(taken)]
    others = rng.permutation([i for i in rows if not held[i] & set(taken)]).tolist()
    ids = [labelled.table.ids[i] for i in others]
    test, validation = ids[:_TEST], ids[_TEST : _TEST + _VALIDATION]
    split = {"test": test, "validation": validation, "train": ids[len(test + validation) :]}
    split["train"] = split["train"][: labels - len(validation)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "split.json")
        file.write_text(json.dumps(split), encoding="utf-8")
        result = carry_out(_config(model, samples, file, draw), Path(folder, "run"))
        assert result is not None
        structures = [labelled.table.structures[i] for i in asked]
        bundle = load(Path(folder, "run"))
        predicted = predict(Path(folder, "run"), structures)
        everything = bundle.about | {"elements": None, "left_out_elements": {}}
        save_bundle(Path(folder, "plain"), bundle._replace(about=everything))
        plain = predict(Path(folder, "plain"), structures)
    target = labelled.labels[asked, 0]
    inside, unwidened = (
        np.mean([row.low <= y <= row.high for row, y in zip(each, target, strict=True)])
        for each in (predicted, plain)
    )
    mae = np.mean([abs(row.prediction - y) for row, y in zip(predicted, target, strict=True)])
    (measured,) = result["left_out_elements"].values()
    numbers = [float(mae), result["test_mae"], float(inside), float(unwidened)]
    return Row(
        *(model, samples.table.key, labels, draw, " ".join(taken), len(asked)),
        *(*numbers, measured["widening"]),
    )


def _config(model: str, samples: Samples, split: Path, draw: int) -> ConfigDict:
    table = samples.table
    about = {"path": table.path, "target": table.target, "unit": table.unit}
    config = defaults.gaussian_process(**about)
    if model == "cogn":
        config = defaults.scratch(**about)
        config.training.epochs, config.training.evaluate_every = 60, 6
    config.seed, config.leave_out_elements = draw, _LEFT_OUT
    config.data.update(id_column="", split=str(split), log=samples.heavy_tail)
    return config


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables and splits.", required=True)
    flags.DEFINE_string("csv", None, "File that rows are added to.", required=True)
    flags.DEFINE_list("models", ["process"], "process, cogn.")
    flags.DEFINE_list("sets", ["ph", "dc", "gv", "ebg"], "Sets.")
    flags.DEFINE_list("draws", ["1", "2", "3"], "Seeds.")
    flags.DEFINE_integer("labels", 300, "Labels to train and validate on.")


def _main(argv: list[str]) -> None:
    refuse_arguments(argv, "Values are separated by commas.")
    values = flags.FLAGS
    file = Path(values.csv)
    tables = find_tables(values.data)
    done = {row[:4] for row in find_done(file, Row)}
    cells = itertools.product(values.models, values.sets, [values.labels], map(int, values.draws))
    for cell in tqdm([cell for cell in cells if cell not in done], disable=None):
        model, key, labels, draw = cell
        samples = read_samples(tables[key], defaults.study("").data)
        add_done(file, [run_one(model, samples, labels, draw)])
    print(format_table([row._asdict() for row in find_done(file, Row)]))


if __name__ == "__main__":
    _define_flags()
    run_program(_main)
