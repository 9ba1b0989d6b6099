"""Compares the speed of prediction, graphs included, with the PyPI package alignn.

    python -m benchmarks.prediction --data=FOLDER --set=dc --structures=1000 \
        --peer_python=peer/bin/python --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench. The peer has an environment of its own:

    python -m venv peer && peer/bin/pip install torch==2.13.0 alignn==2026.8.11

Both start from crystals in memory and end with a number for each. They take turns on the same
machine, the peer with the allocator settings that suit it best. Wants an otherwise idle machine.
Exits with 1 where jaxmat is less than 30 times as fast with the bond network, or five times with
ALIGNN (--trunk=alignn), in which case both have networks of the same size.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from pymatgen.core import Structure

from benchmarks.processes import Process, processor, start_peer, write_crystals
from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle, load
from jaxmat.bundles.inference import Inference
from jaxmat.bundles.model import Model, initial_variables
from jaxmat.bundles.predict import forecasts, make_inference
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.reading import read
from jaxmat.data.tables import read_table
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, listed
from jaxmat.models.network import complete_options, make_trunk
from jaxmat.report.tables import Cell, format_table

REQUIRED_RATIOS = {"cogn": 30.0, "alignn": 5.0}


def main(argv: list[str]) -> int:
    """Takes the times and writes them down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    # Compiled anew each time, so that the cold start is one.
    jax.config.update("jax_enable_compilation_cache", False)
    structures = _read_structures(Path(values.data) / f"{values.set}.json.gz", values.structures)
    bundle = load(values.model) if values.model else random_bundle(structures, values.trunk)
    trunk = bundle.model.trunk
    peer_trunk = complete_options(trunk if trunk["kind"] == "alignn" else {"kind": "alignn"})
    bundle = bundle._replace(about={**bundle.about, "elements": None})  # predict all of them
    with tempfile.TemporaryDirectory() as folder:
        crystals = Path(folder) / "crystals.json"
        write_crystals(crystals, structures)
        job = {"task": "predict"}
        with start_peer(values.peer_python, crystals, peer_trunk, job) as peer:
            result = compare(bundle, structures, peer, values.repetitions)
    about = {"program": f"jaxmat {trunk['kind']}", "processor": processor()}
    result = {"set": values.set, "structures": len(structures), **about, **result}
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(_table(result))
    required = REQUIRED_RATIOS[trunk["kind"]]
    print(f"jaxmat is {result['ratio']:.1f} times as fast; required: {required:g}.")
    return int(result["ratio"] < required)


def compare(
    bundle: Bundle, structures: list[Structure], peer: Process, repetitions: int
) -> dict[str, Any]:
    """Returns the seconds of both, in turns, and the ratio of their medians.

    Args:
        bundle: our model.
        structures: what to predict.
        peer: the other side, which has these structures, too.
        repetitions: of each side; a first one of each is not counted.
    """
    load_average = os.getloadavg()[0]
    about = peer.about  # waits until it is ready
    inference = make_inference([bundle])
    cold = _predict(inference, bundle, structures)
    compiling = inference.compile_seconds
    peer.turn()
    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(_predict(inference, bundle, structures))
        theirs.append(peer.turn())
    seconds = float(np.median(ours))
    peer_seconds = float(np.median([sum(parts.values()) for parts in theirs]))
    return {
        "load_average": load_average,
        "cpus": os.cpu_count(),
        "device": str(jax.devices()[0]),
        "jaxmat": {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(bundle.variables["params"])),
            "cold_seconds": cold,
            "compile_seconds": compiling,
            "seconds": ours,
            "structures_per_second": len(structures) / seconds,
        },
        "alignn": {
            "parameters": about["parameters"],
            "version": about["version"],
            "seconds": theirs,
            "structures_per_second": len(structures) / peer_seconds,
        },
        "ratio": peer_seconds / seconds,
    }


def _predict(inference: Inference, bundle: Bundle, structures: list[Structure]) -> float:
    began = time.perf_counter()
    rows = list(forecasts([bundle], inference(read(structures))))
    seconds = time.perf_counter() - began
    if reasons := [row.reason for row in rows if row.reason]:
        raise UserError(f"{len(reasons)} structures are not predicted:\n{listed(reasons)}")
    return seconds


def _read_structures(file: Path, number: int) -> list[Structure]:
    structures = list(read_table(file).structures[:number])
    if len(structures) < number:
        raise UserError(f"{file} has {len(structures)} rows, fewer than --structures={number}.")
    return structures


def random_bundle(structures: list[Structure], kind: str) -> Bundle:
    """Returns a network of default options with random weights."""
    transform = TargetTransform("property", "1", log=False, offset=0.0, scale=1.0)
    trunk = complete_options({"kind": kind})
    settings = GraphSettings(angles=make_trunk(trunk).needs_angles)
    model = Model(trunk, {"property": {"kind": "linear"}}, settings, {"property": transform})
    graphs = list(build_graphs(structures[:1], model.graph))
    data = Dataset(graphs, np.full((1, 1), np.nan))
    return Bundle(model, initial_variables(model.network(), data, 0), make_about("random weights"))


def _table(result: dict[str, Any]) -> str:
    ours, theirs = result["jaxmat"], result["alignn"]
    rows: list[dict[str, Cell]] = [
        {
            "what": "jaxmat",
            "parameters": ours["parameters"],
            "structures/s": ours["structures_per_second"],
            "seconds": ours["seconds"],
        },
        {
            "what": "jaxmat, first call",
            "structures/s": result["structures"] / ours["cold_seconds"],
            "seconds": ours["cold_seconds"],
            "of it compiling": ours["compile_seconds"],
        },
        {
            "what": f"alignn {theirs['version']}",
            "parameters": theirs["parameters"],
            "structures/s": theirs["structures_per_second"],
            "seconds": [sum(parts.values()) for parts in theirs["seconds"]],
            "of it graphs": [parts["graphs"] for parts in theirs["seconds"]],
        },
    ]
    return format_table(rows)


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_string("set", "dc", "Name of the table, without .json.gz.")
    flags.DEFINE_integer("structures", 1000, "Structures to predict, the first of the table.")
    flags.DEFINE_string("model", None, "Bundle or run; else random weights.")
    flags.DEFINE_enum("trunk", "cogn", list(REQUIRED_RATIOS), "Of random weights.")
    flags.DEFINE_string("peer_python", None, "Python of the peer's environment.", required=True)
    flags.DEFINE_integer("repetitions", 5, "Of each side, in turns.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
