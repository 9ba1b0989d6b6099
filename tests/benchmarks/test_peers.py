"""The benchmark of what users would pick instead: all see the same labels and are scored alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers import Job, Known
from jaxmat.experiments import defaults
from jaxmat.experiments.study.samples import read_samples
from jaxmat.experiments.study.tables import find_tables, read_table

# Predicts the median of the targets for all others, and tells what it was given.
PEER = """
import json, sys
from pathlib import Path
from statistics import median
print(json.dumps({"versions": {"none": "1"}}), flush=True)
for job, _ in zip(json.loads(Path(sys.argv[1]).read_text()), sys.stdin):
    others = len(job["crystals"]) - len(job["targets"])
    found = {"seconds": 2.0, "predictions": [median(job["targets"])] * others}
    print(json.dumps({"features_seconds": 1.0, "models": {"median of others": found}}), flush=True)
"""


@pytest.fixture(scope="module")
def known() -> Known:
    """The bundled dielectric constants, few of them."""
    table = find_tables("bundled")["dielectric"]
    samples = read_samples(table, defaults.data())
    samples = samples._replace(pool=samples.pool[:60], test=samples.test[:15], heavy_tail=True)
    labelled = read_table(table, defaults.data())
    ids = labelled.table.ids
    return Known(
        samples,
        dict(zip(ids, labelled.table.structures, strict=True)),
        dict(zip(ids, labelled.labels[:, 0].tolist(), strict=True)),
    )


def test_the_peer_sees_labels_of_both_parts_and_no_test_label(known: Known) -> None:
    job = Job(known, 40, 1)
    sent = job.peer_job()
    assert len(sent["targets"]) == 40 and len(sent["crystals"]) == 55
    assert not {*job.fitted} & {*job.split["test"]}
    # The logarithm, as ours.
    assert np.exp(sent["targets"]) == pytest.approx([known.labels[id] for id in job.fitted])


def test_all_are_scored_in_the_unit_on_the_same_crystals(known: Known, tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    job = Job(known, 40, 1)
    peer = peers.Peer(("median of others",), str(script))
    (rows,) = peers.do_jobs([job], peer, sys.executable)
    process, median = rows
    truth = np.array([known.labels[id] for id in job.split["test"]])
    middle = np.median(np.log([known.labels[id] for id in job.fitted]))
    assert median.method == "median of others"
    assert median.mae == pytest.approx(np.mean(np.abs(truth - np.exp(middle))))
    assert median.seconds == 3.0 and median.features_seconds == 1.0
    assert process.crystals == median.crystals == 15 and 0 < process.mae < 2 * median.mae
    assert json.loads(json.dumps(process)) and "40" in peers.tabulate(rows)
