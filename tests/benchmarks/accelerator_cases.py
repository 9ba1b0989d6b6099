"""Compiles small networks for a target, named on the command line; prints kernels as JSON.

Run by test_accelerators.py in a process of its own: compilers for devices want settings that are
read when JAX starts.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from benchmarks.accelerators import compile_for, count
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.models.network import build_network
from jaxmat.training.parallel import AXIS

SMALL = {
    "alignn": {"width": 16, "embedding_width": 8, "alignn_layers": 1, "gcn_layers": 1},
    "cogn": {"width": 16, "layers": 1},
}
# Trunk, precision and layout; the layouts but the first are of four devices.
CASES = [
    *((kind, "float32", "one") for kind in SMALL),
    ("alignn", "bfloat16", "one"),
    *(("cogn", "float32", layout) for layout in ("pmap", "shard_map", "population")),
]


def main(target: str) -> None:
    """Prints case → kernels of both programs."""
    none = np.zeros(0, np.int32)
    atom = CrystalGraph(np.ones(1, np.int32), np.ones(1, np.int32), *[none] * 8)
    batch = batch_crystals([atom], np.zeros((1, 1)), Shape(9, 64, 256, 1024))
    result = {}
    for kind, precision, layout in CASES:
        network = build_network(
            {"kind": kind, **SMALL[kind]}, {"p": {"kind": "linear"}}, precision=precision
        )
        if layout in ("pmap", "shard_map"):
            network = network.clone(axis_name=AXIS)
        devices = 1 if layout == "one" else 4
        result[f"{kind} {precision} {layout}"] = {
            name: count(str(program.as_text())).kernels
            for name, program in compile_for(target, network, batch, layout, devices).items()
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
