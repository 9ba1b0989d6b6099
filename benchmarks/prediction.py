"""Compares the speed of prediction, graphs included, with the PyPI package alignn.

    python -m benchmarks.prediction --data=FOLDER --set=dc --structures=1000 \
        --peer_python=peer/bin/python --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench. The peer has an environment of its own:

    python -m venv peer && peer/bin/pip install torch==2.13.0 alignn==2026.8.11

Both start from crystals in memory and end with a number for each. They take turns on the same
machine, the peer with the allocator settings that suit it best. Wants an otherwise idle machine.
Exits with 1 where jaxmat is less than five times as fast.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from pymatgen.core import Structure

from jaxmat.bundle import Bundle, load, make_about
from jaxmat.commands import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.inputs import find_inputs
from jaxmat.data.tables import read_table
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.inference import Inference
from jaxmat.model import Model, initial_variables
from jaxmat.predict import forecasts, make_inference
from jaxmat.report.tables import Cell, format_table

REQUIRED_RATIO = 5.0
_PEER = Path(__file__).with_name("peer_alignn.py")
_PEER_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


class Peer:
    """A process that predicts the same crystals when told to.

    Attributes:
        parameters: of its network.
        version: of the package.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Waits until it is ready."""
        self._process = process
        about = self._hear()
        self.parameters, self.version = about["parameters"], about["version"]

    def predict(self) -> dict[str, Any]:
        """Returns the seconds that its graphs and its network take."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise UserError("The peer has stopped; its own words are above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main(argv: list[str]) -> int:
    """Takes the times and writes them down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    # Compiled anew each time, so that the cold start is one.
    jax.config.update("jax_enable_compilation_cache", False)
    structures = _read_structures(Path(values.data) / f"{values.set}.json.gz", values.structures)
    bundle = load(values.model) if values.model else _random_bundle(structures)
    bundle = bundle._replace(about={**bundle.about, "elements": None})  # predict all of them
    trunk = bundle.model.trunk
    widths = {
        "hidden_features": trunk["width"],
        "embedding_features": trunk["embedding_width"],
        "edge_input_features": trunk["bond_bins"],
        "triplet_input_features": trunk["angle_bins"],
        "alignn_layers": trunk["alignn_layers"],
        "gcn_layers": trunk["gcn_layers"],
    }
    with start_peer(values.peer_python, structures, widths) as peer:
        result = compare(bundle, structures, peer, values.repetitions)
    result = {"set": values.set, "structures": len(structures), **result}
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(_table(result))
    print(f"jaxmat is {result['ratio']:.1f} times as fast; required: {REQUIRED_RATIO:g}.")
    return int(result["ratio"] < REQUIRED_RATIO)


def compare(
    bundle: Bundle, structures: list[Structure], peer: Peer, repetitions: int
) -> dict[str, Any]:
    """Returns the seconds of both, in turns, and the ratio of their medians.

    Args:
        bundle: our model.
        structures: what to predict.
        peer: the other side, which has these structures, too.
        repetitions: of each side; a first one of each is not counted.
    """
    load_average = os.getloadavg()[0]
    inference = make_inference([bundle])
    cold = _predict(inference, bundle, structures)
    compiling = inference.compile_seconds
    peer.predict()
    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(_predict(inference, bundle, structures))
        theirs.append(peer.predict())
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
            "parameters": peer.parameters,
            "version": peer.version,
            "seconds": theirs,
            "structures_per_second": len(structures) / peer_seconds,
        },
        "ratio": peer_seconds / seconds,
    }


def _predict(inference: Inference, bundle: Bundle, structures: list[Structure]) -> float:
    began = time.perf_counter()
    rows = list(forecasts([bundle], inference(find_inputs(structures))))
    seconds = time.perf_counter() - began
    if reasons := [row.reason for row in rows if row.reason]:
        raise UserError(f"{len(reasons)} structures are not predicted:\n{listed(reasons)}")
    return seconds


@contextmanager
def start_peer(python: str, structures: list[Structure], widths: dict[str, int]) -> Iterator[Peer]:
    """Yields the peer, ready to predict these structures; ends it afterwards."""
    crystals = [
        {
            "lattice_mat": crystal.lattice.matrix.tolist(),
            "coords": crystal.frac_coords.tolist(),
            "elements": [site.specie.symbol for site in crystal],
        }
        for crystal in structures
    ]
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | _PEER_ALLOCATOR
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crystals.json"
        file.write_text(json.dumps(crystals), encoding="utf-8")
        try:
            process = subprocess.Popen(
                [python, str(_PEER), str(file), json.dumps(widths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise UserError(f"Cannot start --peer_python={python}: {error}") from error
        with process:  # on leaving, its input is closed and it ends
            yield Peer(process)


def _read_structures(file: Path, number: int) -> list[Structure]:
    structures = list(read_table(file).structures[:number])
    if len(structures) < number:
        raise UserError(f"{file} has {len(structures)} rows, fewer than --structures={number}.")
    return structures


def _random_bundle(structures: list[Structure]) -> Bundle:
    """Returns the network of the paper with random weights."""
    transform = TargetTransform("property", "1", log=False, offset=0.0, scale=1.0)
    trunk = defaults.network().trunk.to_dict()
    model = Model(trunk, {"property": {"kind": "linear"}}, GraphSettings(), {"property": transform})
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
    flags.DEFINE_string("model", None, "Bundle or run; else random weights of width 256.")
    flags.DEFINE_string("peer_python", None, "Python of the peer's environment.", required=True)
    flags.DEFINE_integer("repetitions", 5, "Of each side, in turns.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
