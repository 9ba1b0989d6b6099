"""Measures speed and memory beside the PyPI package alignn, in the same run, and prints a table.

    python -m benchmarks.throughput --data=FOLDER --sets=dc,gv --batch=16,64 --json=FILE \
        --peer_python=peer/bin/python

FOLDER holds NAME.json.gz tables in the layout of Matbench. The peer has an environment of its own
(python -m venv peer && peer/bin/pip install torch==2.13.0 alignn==2026.8.11); without it only we
are measured. Both train and use an ALIGNN of the paper's size (width 256, 4 + 4 layers), and we our
default network, cogn, as well, on the same random crystals: 256 of each set, 128 of sets with large
cells. Each program has a process of its own, and they take turns of four seconds or more, in which
they go through all crystals as often as it takes; numbers are medians of three turns. Before each
they go through all crystals once, which does not count: the first steps after a pause are two to
four times slower. So is the first step of each shape of batch, which is taken before.

Graphs are built before training and prediction are timed, in one process; putting batches together
is part of the time. With --flavor=multi, the peer's graphs and our `reference` ones are those of
the published multi-property models, which keep most bonds twice. Where the peer needs more than
three quarters of the machine's memory it stops, and its numbers are left out. Linux; wants an
otherwise idle machine.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from pymatgen.core import Structure

from benchmarks.processes import Process, processor, start, start_peer, write_crystals
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.models.network import complete_options
from jaxmat.report.tables import Cell, format_table

PEER = "PyPI alignn"
# Ours, by what stands in front of the rule of their graphs.
COGN, ALIGNN = "cogn", "alignn"
_OWN = (sys.executable, "-m")
_SEED = 0
_TURNS, _TURN_SECONDS = 3, 4.0
# What is added up over a turn; of the rest the last counts.
_ADDED = ("seconds", "waiting_seconds", "structures", "rows", "padded_rows", "flops")
_STRUCTURES, _STRUCTURES_OF_LARGE_CELLS = 256, 128
_LARGE_CELLS = ("bg", "ebg", "fe")
# Matrix products of a forward pass of networks with default options, for a site, a bond, an angle.
_FLOPS = {
    ALIGNN: np.array([4_241_408, 3_188_736, 562_176]),
    COGN: np.array([856_832, 499_712, 0]),
}
_PASSES = {"train": 3, "infer": 1}  # backward costs about two forward passes

Row = dict[str, Any]
_logger = logging.getLogger("jaxmat.benchmarks")


class Job(NamedTuple):
    """What is measured.

    Attributes:
        task: "graphs", "train" or "infer".
        batch_size: None for graphs.
        canonical: flavour of the published graphs: of single-property models, or multi-property.
    """

    task: str
    batch_size: int | None
    canonical: bool


class Answers(NamedTuple):
    """What a program said when ready and in its turns, and its memory."""

    about: dict[str, Any]
    turns: list[dict[str, Any]]
    peak_bytes: int

    def rates(self, field: str) -> np.ndarray:
        """Returns a number by the second in each turn, [turns] or [turns, ...]."""
        return np.array([np.array(turn[field]) / turn["seconds"] for turn in self.turns])

    def total(self, field: str) -> np.ndarray:
        """Returns the sum of a number over the turns."""
        return np.sum([turn[field] for turn in self.turns], axis=0)


def main(argv: list[str]) -> None:
    """Measures all sets and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    samples = {
        name: sample(Path(values.data) / f"{name}.json.gz", values.structures or usual_size(name))
        for name in values.sets
    }
    about = {
        "cpus": os.cpu_count(),
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "jax": metadata.version("jax"),
        "flavor": values.flavor,
        "structures": {name: len(structures) for name, structures in samples.items()},
    }
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        start("matmul", [*_OWN, "benchmarks.matmul"], os.environ) as matmul,
    ):
        crystals = Path(folder) / "crystals.json"
        for name, structures in samples.items():
            write_crystals(crystals, structures)
            sizes = [int(size) for size in values.batch]
            for job in jobs(values.tasks, sizes, canonical=values.flavor == "single"):
                _logger.info("%s: %s %s", name, job.task, job.batch_size or "")
                answers = measure(crystals, job, values.peer_python, matmul)
                rows += [{"set": name, **row} for row in make_rows(job, answers)]
                text = json.dumps({**about, "rows": rows}, indent=1)
                Path(values.json).write_text(text + "\n", encoding="utf-8")
    print(make_table(rows))


def usual_size(name: str) -> int:
    """Returns how many crystals of a set are measured."""
    return _STRUCTURES_OF_LARGE_CELLS if name in _LARGE_CELLS else _STRUCTURES


def sample(file: Path, number: int) -> list[Structure]:
    """Returns random crystals of a table, always the same.

    Raises:
        UserError: the table has fewer, or one cannot be read.
    """
    crystals = read_table(file).structures
    if len(crystals) < number:
        raise UserError(f"{file} has {len(crystals)} rows, fewer than the {number} asked for.")
    return [crystals[i] for i in np.random.RandomState(_SEED).permutation(len(crystals))[:number]]


def jobs(tasks: Sequence[str], batch_sizes: Sequence[int], *, canonical: bool) -> list[Job]:
    """Returns all that is measured of a set."""
    steps = [Job(task, size, canonical) for size in batch_sizes for task in _PASSES]
    every = [Job("graphs", None, canonical), *steps]
    return [job for job in every if job.task in tasks]


def measure(
    crystals: Path, job: Job, peer_python: str | None, matmul: Process
) -> dict[str, Answers]:
    """Lets all programs do a job in turns.

    Args:
        crystals: file with the crystals.
        job: what to do.
        peer_python: Python of the peer's environment, or None to leave it out.
        matmul: measures the machine in its turn.

    Returns:
        The answers of "cogn complete_shells", "alignn complete_shells", "alignn reference",
        "matmul" and, unless it has run out of memory, PEER.
    """
    cogn, alignn = (complete_options({"kind": kind}) for kind in (COGN, ALIGNN))
    published = GraphSettings(neighbor_rule="reference", canonical=job.canonical)
    programs = {
        f"{COGN} complete_shells": (cogn, GraphSettings(angles=False)),
        f"{ALIGNN} complete_shells": (alignn, GraphSettings()),
        f"{ALIGNN} reference": (alignn, published),
    }
    with ExitStack() as stack:
        processes = {"matmul": matmul}
        for name, (trunk, graph) in programs.items():
            own = {"task": job.task, "batch_size": job.batch_size, "trunk": trunk}
            own["graph"] = graph.to_dict()
            command = [*_OWN, "benchmarks.measure", str(crystals), json.dumps(own)]
            processes[name] = stack.enter_context(start(name, command, os.environ))
        if peer_python:
            peer = start_peer(peer_python, crystals, alignn, job._asdict())
            processes[PEER] = stack.enter_context(peer)
        return take_turns(processes, _TURNS)


def take_turns(processes: Mapping[str, Process], turns: int) -> dict[str, Answers]:
    """Lets processes work in turns and returns what they say.

    A peer that stops in a turn is left out; it has perhaps run out of memory.

    Raises:
        UserError: one of our own has stopped, or the peer before its first turn.
    """
    answers = {name: Answers(process.about, [], 0) for name, process in processes.items()}
    for _ in range(turns):
        for name in list(answers):
            try:
                answers[name].turns.append(_turn(processes[name]))
            except UserError as error:
                if name != PEER:
                    raise
                _logger.warning("%s Its numbers are left out.", error)
                del answers[name]
    return {
        name: answer._replace(peak_bytes=processes[name].peak_bytes())
        for name, answer in answers.items()
    }


def _turn(process: Process) -> dict[str, Any]:
    """Lets a process do its task until the turn is over, and adds up what it says.

    Waking up does not count.
    """
    process.turn()
    total = process.turn()
    while total["seconds"] < _TURN_SECONDS:
        answer = process.turn()
        added = {key: np.add(total[key], answer[key]).tolist() for key in _ADDED if key in total}
        total = answer | added
    return total


def make_rows(job: Job, answers: Mapping[str, Answers]) -> list[Row]:
    """Returns a row for each program, with numbers of the table or None."""
    rate = float(np.median(answers["matmul"].rates("flops")))
    return [
        _row(job, name, answer, rate, answers.get(PEER))
        for name, answer in answers.items()
        if name != "matmul"
    ]


def _row(job: Job, name: str, answer: Answers, rate: float, peer: Answers | None) -> Row:
    last, rows = answer.turns[-1], answer.total("rows")
    row: Row = {
        "task": job.task,
        "batch": job.batch_size,
        "program": name,
        "about": answer.about,
        "structures_per_second": _speed(answer),
        "ratio": _speed(answer) / _speed(peer) if peer else None,
        "structures_per_second_by_turn": answer.rates("structures").tolist(),
        "rows": (rows / answer.total("structures")).tolist(),
    }
    if job.task in _PASSES:
        trunk = COGN if name.startswith(COGN) else ALIGNN
        flops = _PASSES[job.task] * forward_flops(trunk, np.median(answer.rates("rows"), axis=0))
        row |= {
            "peak_bytes": answer.peak_bytes,
            "waiting_share": float(np.median(answer.rates("waiting_seconds"))),
            "matmul_flops_per_second": rate,
            "matmul_share": flops / rate,
        }
    if "padded_rows" in last:
        most = 2 if rows[2] else 1  # angles, or where there are none bonds
        row |= {
            "padding": float(answer.total("padded_rows")[most] / rows[most]),
            "compile_seconds": last["compile_seconds"],
            "shapes": last["shapes"],
        }
    return row


def _speed(answer: Answers) -> float:
    return float(np.median(answer.rates("structures")))


def forward_flops(trunk: str, rows: np.ndarray) -> float:
    """Returns the operations in matrix products of a forward pass of a network.

    Args:
        trunk: its kind; its options are the defaults.
        rows: sites, bonds and angles that are computed, [3].
    """
    return float(_FLOPS[trunk] @ rows)


def make_table(rows: Sequence[Row]) -> str:
    """Returns the table for people, in Markdown."""
    return format_table([_cells(row) for row in rows])


def _cells(row: Row) -> dict[str, Cell]:
    def scaled(key: str, factor: float, form: str) -> str:
        return "" if row.get(key) is None else format(factor * row[key], form)

    return {
        "set": row["set"],
        "task": f"{row['task']} {row['batch'] or ''}".strip(),
        "program": row["program"],
        "structures/s": row["structures_per_second"],
        "times the peer": scaled("ratio", 1, ".3g"),
        "peak memory, GB": scaled("peak_bytes", 1e-9, ".2f"),
        "bonds of a crystal": row["rows"][1],
        "angles of a crystal": row["rows"][2],
        "padded / real": scaled("padding", 1, ".3f"),
        "shapes": scaled("shapes", 1, "d"),
        "compiling, s": scaled("compile_seconds", 1, ".1f"),
        "% of matmul rate": scaled("matmul_share", 100, ".0f"),
        "% waiting": scaled("waiting_share", 100, ".1f"),
    }


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_list("sets", ["dc", "gv"], "Names of tables, without .json.gz.")
    flags.DEFINE_list("batch", ["16", "64"], "Batch sizes.")
    flags.DEFINE_list("tasks", ["graphs", *_PASSES], "Of graphs, train and infer.")
    flags.DEFINE_enum("flavor", "single", ["single", "multi"], "Of the published graphs.")
    flags.DEFINE_integer("structures", 0, "Crystals of each set; 0: as many as usual.")
    flags.DEFINE_string("peer_python", None, "Python of the peer's environment; none: no peer.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
