"""The PyPI package alignn as a peer: python peer_alignn.py CRYSTALS WIDTHS, in its own environment.

CRYSTALS is a JSON file [{"lattice_mat", "elements", "coords"}, ...], WIDTHS a JSON object of
options of its network. Says {"parameters", "version"} on standard output; then, for each line
that comes in, predicts all crystals and says {"graphs": seconds, "network": seconds}.

The network and its graphs are those that come nearest to ours: the DGL-free ALIGNN with the
published nearest-neighbour edges (the package's other builder, a search over a radius in torch, is
slower on a CPU).
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alignn.graphs import build_undirected_edgedata, nearest_neighbor_edges
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
from alignn.torch_graph_builder import (
    TorchGraph,
    _line_graph_edges,
    batch_torch_graph_pairs,
    torch_bond_cosines,
)
from jarvis.core.atoms import Atoms
from jarvis.core.specie import get_node_attributes

_BATCH_SIZE = 64


def main(crystals: str, widths: str) -> None:
    """Answers each line of standard input."""
    say, sys.stdout = sys.stdout, sys.stderr  # the package prints on its own account
    torch.set_num_threads(os.cpu_count() or 1)
    atoms = [
        Atoms(**crystal, cartesian=False) for crystal in json.loads(Path(crystals).read_text())
    ]
    network = make_network(json.loads(widths))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = {"parameters": parameters, "version": metadata.version("alignn")}
    print(json.dumps(about), file=say, flush=True)
    for _ in sys.stdin:
        print(json.dumps(predict(network, atoms)), file=say, flush=True)


def make_network(widths: dict[str, int]) -> ALIGNNAtomWisePure:
    """Returns the network that predicts one property, without forces."""
    config = ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure",
        atom_input_features=92,
        calculate_gradient=False,
        gradwise_weight=0,
        energy_mult_natoms=False,
        use_penalty=False,
        lg_on_fly=False,
        use_zbl=False,
        use_cutoff_function=False,
        **widths,
    )
    return ALIGNNAtomWisePure(config).eval()


def predict(network: ALIGNNAtomWisePure, atoms: list[Atoms]) -> dict[str, float]:
    """Predicts all crystals; returns the seconds that graphs and network take."""
    seconds = {"graphs": 0.0, "network": 0.0}
    for start in range(0, len(atoms), _BATCH_SIZE):
        chunk = atoms[start : start + _BATCH_SIZE]
        began = time.perf_counter()
        batch = batch_torch_graph_pairs([make_graphs(crystal) for crystal in chunk])
        lattice = torch.tensor(np.array([crystal.lattice_mat for crystal in chunk]))
        built = time.perf_counter()
        with torch.inference_mode():
            output: Any = network((*batch, lattice.float()))["out"]
        assert output.shape == (len(chunk),)
        seconds["graphs"] += built - began
        seconds["network"] += time.perf_counter() - built
    return seconds


def make_graphs(atoms: Atoms) -> tuple[TorchGraph, TorchGraph]:
    """Returns the graph and the line graph of a crystal."""
    edges, _ = nearest_neighbor_edges(atoms=atoms, cutoff=8, max_neighbors=12, use_canonize=True)
    sender, receiver, vector, _ = build_undirected_edgedata(atoms, edges)
    features = np.array([get_node_attributes(symbol, "cgcnn") for symbol in atoms.elements])
    nodes = {
        "atom_features": torch.tensor(features).float(),
        "V": torch.full((len(features),), float(atoms.volume)),
    }
    graph = TorchGraph(len(features), sender, receiver, ndata=nodes, edata={"r": vector})
    first, second = _line_graph_edges(sender, receiver, len(features))
    cosine = torch_bond_cosines(vector[first], vector[second])
    return graph, TorchGraph(len(sender), first, second, edata={"h": cosine})


if __name__ == "__main__":
    main(*sys.argv[1:])
