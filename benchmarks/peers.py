"""What users would pick instead, beside our Gaussian process on descriptors.

    python -m benchmarks.peers --data=FOLDER --peer_python=peer/bin/python --csv=FILE
    python -m benchmarks.peers ... --peer=alignn --sets=dc --sizes=100 --trials=1

FOLDER holds NAME.json.gz tables with splits/NAME.json, the authors' lists. peer/bin/python is that
of an environment with matminer: a random forest and gradient boosting on Magpie features (see
peer_matminer.py); or with the PyPI package alignn: its network from random weights (see
peer_alignn_training.py), 18 minutes a cell of 100 labels. All see the labels of a list, training
and validation part, and are tested on the published test part; where ours learns the logarithm of
the labels, all do. Rows are added to the file cell by cell; cells that are in it are passed over.
At the end, and with --report alone, a table is printed.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks.kept import add_done, find_done
from benchmarks.processes import in_peers_words, start
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.splits import write_split
from jaxmat.errors import UserError
from jaxmat.experiments import carry_out, defaults
from jaxmat.experiments.study.samples import IdLists, Samples, finetuning_split, read_samples
from jaxmat.experiments.study.tables import find_tables, read_table
from jaxmat.report.choice import PROCESS
from jaxmat.report.tables import Cell, format_table

# The published runs of this trial of ph used lists that were not released.
_LOST = ("ph", 5)


class Peer(NamedTuple):
    """Models of somebody else.

    Attributes:
        methods: what the program calls them.
        program: that fits them, a file beside this.
    """

    methods: Sequence[str]
    program: str


PEERS: Mapping[str, Peer] = {
    "matminer": Peer(
        ("random forest on Magpie features", "gradient boosting on Magpie features"),
        "peer_matminer.py",
    ),
    "alignn": Peer(("PyPI alignn from random weights",), "peer_alignn_training.py"),
}


class Row(NamedTuple):
    """One model in one cell.

    Attributes:
        set: name of the table.
        labels: of the training and the validation part.
        trial: number of the list of labels.
        method: what was fitted.
        crystals: tested on.
        mae: on them, in the unit.
        features_seconds: to make the features of all crystals of the cell, from their structures.
        seconds: with fitting and predicting.
    """

    set: str
    labels: int
    trial: int
    method: str
    crystals: int
    mae: float
    features_seconds: float
    seconds: float


class Known(NamedTuple):
    """The crystals of a set.

    Attributes:
        samples: which of them a trial sees.
        structures: by id.
        labels: by id, in the unit.
    """

    samples: Samples
    structures: Mapping[str, Any]
    labels: Mapping[str, float]


class Job(NamedTuple):
    """A cell that is to be done."""

    known: Known
    size: int
    trial: int

    @property
    def split(self) -> IdLists:
        """The ids of each part."""
        return finetuning_split(self.known.samples, self.size, self.trial)

    @property
    def fitted(self) -> list[str]:
        """The ids of all labels that models are fitted to."""
        return [*self.split["train"], *self.split["validation"]]

    def peer_job(self) -> dict[str, Any]:
        """Returns the cell as the peer reads it."""
        ids = [*self.fitted, *self.split["test"]]
        targets = np.array([self.known.labels[id] for id in self.fitted])
        if self.known.samples.heavy_tail:
            targets = np.log(targets)
        return {
            "crystals": [in_peers_words(self.known.structures[id]) for id in ids],
            "targets": targets.tolist(),
            "validation": len(self.split["validation"]),
        }

    def row(self, method: str, mae: float, features_seconds: float, seconds: float) -> Row:
        """Returns the row of a method; `seconds` are those without the features."""
        return Row(
            *(self.known.samples.table.key, self.size, self.trial, method),
            *(len(self.split["test"]), mae, features_seconds, features_seconds + seconds),
        )


def peer_rows(job: Job, answer: Mapping[str, Any]) -> list[Row]:
    """Returns the rows of what the peer has predicted."""
    truth = np.array([job.known.labels[id] for id in job.split["test"]])
    rows = []
    for method, found in answer["models"].items():
        predictions = np.array(found["predictions"])
        if job.known.samples.heavy_tail:
            predictions = np.exp(predictions)
        mae = float(np.mean(np.abs(predictions - truth)))
        rows.append(job.row(method, mae, answer["features_seconds"], found["seconds"]))
    return rows


def own_row(job: Job) -> Row:
    """Returns the row of the Gaussian process on descriptors."""
    table = job.known.samples.table
    config = defaults.gaussian_process(path=table.path, target=table.target, unit=table.unit)
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder, "split.json")
        write_split(split, job.split)
        config.data.update(id_column="", split=str(split), log=job.known.samples.heavy_tail)
        result = carry_out(config, Path(folder, "run"))
    assert result is not None
    ids = [*job.fitted, *job.split["test"]]
    structures = [job.known.structures[id] for id in ids]
    began = time.perf_counter()
    # The run had them from the store of graphs.
    list(build_graphs(structures, GraphSettings(**config.graph, angles=False)))
    features_seconds = time.perf_counter() - began
    return job.row(str(PROCESS), result["test_mae"], features_seconds, result["seconds"])


def do_jobs(jobs: Sequence[Job], peer: Peer, peer_python: str) -> Iterator[list[Row]]:
    """Yields the rows of one cell after the other; `peer_python` is that of its environment."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jobs.json")
        file.write_text(json.dumps([job.peer_job() for job in jobs]), encoding="utf-8")
        program = Path(__file__).parent / peer.program
        with start("The peer", [peer_python, str(program), str(file)], os.environ) as process:
            print("Peer:", *itertools.chain(*process.about["versions"].items()))
            for job in jobs:
                yield [own_row(job), *peer_rows(job, process.turn())]


def read_known(folder: str, key: str) -> Known:
    """Reads a table of the folder."""
    tables, data = find_tables(folder), defaults.data()
    if key not in tables:
        raise UserError(f"{folder} has no table {key}; it has {', '.join(tables)}.")
    labelled = read_table(tables[key], data)
    ids = labelled.table.ids
    return Known(
        read_samples(tables[key], data),
        dict(zip(ids, labelled.table.structures, strict=True)),
        dict(zip(ids, labelled.labels[:, 0].tolist(), strict=True)),
    )


def tabulate(rows: Sequence[Row]) -> str:
    """Returns means over trials, a line for each method in each set and number of labels."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.set, row.labels, row.method), []).append(row)
    lines: list[dict[str, Cell]] = [
        {
            "set": key,
            "labels": labels,
            "method": method,
            "trials": len(own),
            "MAE": [row.mae for row in own],
            "features / s": float(np.mean([row.features_seconds for row in own])),
            "all / s": float(np.mean([row.seconds for row in own])),
        }
        for (key, labels, method), own in groups.items()
    ]
    return format_table(lines)


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables and splits.", required=True)
    flags.DEFINE_string("peer_python", None, "Python of the peer's environment.")
    flags.DEFINE_enum("peer", "matminer", list(PEERS), "Whose models.")
    flags.DEFINE_string("csv", None, "File that rows are added to.", required=True)
    flags.DEFINE_list("sets", ["ph", "dc"], "Sets.")
    flags.DEFINE_list("sizes", ["100", "800"], "Numbers of labels.")
    flags.DEFINE_list("trials", ["1", "2", "3", "4", "5"], "Trials.")
    flags.DEFINE_bool("report", False, "Fit nothing, print the table of what there is.")


def _main(argv: list[str]) -> None:
    refuse_arguments(argv, "Values are separated by commas.")
    values = flags.FLAGS
    file = Path(values.csv)
    if not values.report:
        if not values.peer_python:
            raise UserError("Name the Python of the peer's environment: --peer_python=FILE.")
        peer, found = PEERS[values.peer], {row[:4] for row in find_done(file, Row)}
        known = {key: read_known(values.data, key) for key in values.sets}
        cells = itertools.product(values.sets, map(int, values.sizes), map(int, values.trials))
        jobs = [
            Job(known[key], size, trial)
            for key, size, trial in cells
            if (key, trial) != _LOST and not found >= {(key, size, trial, m) for m in peer.methods}
        ]
        for rows in do_jobs(jobs, peer, values.peer_python) if jobs else ():
            add_done(file, [row for row in rows if row[:4] not in found])
    print(tabulate(find_done(file, Row)))


if __name__ == "__main__":
    _define_flags()
    run_program(_main)
