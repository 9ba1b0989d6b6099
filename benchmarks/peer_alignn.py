"""The PyPI package alignn as a peer, in its own environment: peer_alignn.py CRYSTALS WIDTHS JOB.

CRYSTALS is a JSON file [{"lattice_mat", "elements", "coords"}, ...], WIDTHS a JSON object of
options of its network, JOB one {"task", "batch_size", "canonical"}. Says {"parameters", "version"}
on standard output; then, for each line that comes in, does its task once with all crystals and says
what it took. The tasks: "predict" from crystals to numbers, "graphs" alone, and on
graphs that are already there "infer" and "train" (forward, backward, AdamW).

The network and its graphs are those that come nearest to ours: the DGL-free ALIGNN with the
published nearest-neighbour edges (the package's other builder, a search over a radius in torch, is
slower on a CPU).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
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
# Of the machine's memory: beyond it the peer ends by itself, before the system ends something else.
_MEMORY_SHARE = 0.75

Answer = dict[str, Any]


def main(crystals: str, widths: str, job: str) -> None:
    """Answers each line of standard input."""
    say, sys.stdout = sys.stdout, sys.stderr  # the package prints on its own account
    torch.set_num_threads(os.cpu_count() or 1)
    limit = int(_MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    atoms = [
        Atoms(**crystal, cartesian=False) for crystal in json.loads(Path(crystals).read_text())
    ]
    network = make_network(json.loads(widths))
    turn = make_turn(network, atoms, **json.loads(job))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = {"parameters": parameters, "version": metadata.version("alignn")}
    print(json.dumps(about), file=say, flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), file=say, flush=True)


def make_turn(
    network: ALIGNNAtomWisePure,
    atoms: list[Atoms],
    task: str,
    batch_size: int = _BATCH_SIZE,
    canonical: bool = True,
) -> Callable[[], Answer]:
    """Returns the function that does a task once; see the module for the arguments."""
    if task == "predict":
        return partial(predict, network, atoms)
    if task == "graphs":
        return partial(time_graphs, atoms, canonical)
    order = np.random.default_rng(0).permutation(len(atoms))
    chosen = [atoms[i] for i in order]
    pairs = [make_graphs(crystal, canonical) for crystal in chosen]
    lattices = torch.tensor(np.array([crystal.lattice_mat for crystal in chosen])).float()
    chunks = [slice(start, start + batch_size) for start in range(0, len(pairs), batch_size)]
    step = partial(infer, network) if task == "infer" else make_train_step(network)

    def turn() -> Answer:
        waiting, began = 0.0, time.perf_counter()
        for chunk in chunks:
            asked = time.perf_counter()
            batch = batch_torch_graph_pairs(pairs[chunk])
            waiting += time.perf_counter() - asked
            step((*batch, lattices[chunk]))
        seconds = time.perf_counter() - began
        return count_rows(pairs) | {"seconds": seconds, "waiting_seconds": waiting}

    return turn


def make_train_step(network: ALIGNNAtomWisePure) -> Callable[[Any], None]:
    """Returns the function that trains on a batch, with targets that mean nothing."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        output = network(batch)["out"]
        torch.nn.functional.mse_loss(output, torch.ones_like(output)).backward()
        optimizer.step()

    return step


def infer(network: ALIGNNAtomWisePure, batch: Any) -> torch.Tensor:
    """Returns the prediction for each crystal of a batch."""
    with torch.inference_mode():
        output: torch.Tensor = network(batch)["out"]
    return output


def time_graphs(atoms: list[Atoms], canonical: bool) -> Answer:
    """Builds all graphs and returns the seconds and rows."""
    began = time.perf_counter()
    pairs = [make_graphs(crystal, canonical) for crystal in atoms]
    return count_rows(pairs) | {"seconds": time.perf_counter() - began}


def count_rows(pairs: list[tuple[TorchGraph, TorchGraph]]) -> Answer:
    """Returns the number of crystals and of their sites, bonds and angles."""
    rows = [(graph.num_nodes, graph.num_edges, angles.num_edges) for graph, angles in pairs]
    return {"structures": len(pairs), "rows": np.sum(rows, axis=0).tolist()}


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
        output = infer(network, (*batch, lattice.float()))
        assert output.shape == (len(chunk),)
        seconds["graphs"] += built - began
        seconds["network"] += time.perf_counter() - built
    return seconds


def make_graphs(atoms: Atoms, canonical: bool = True) -> tuple[TorchGraph, TorchGraph]:
    """Returns the graph and the line graph of a crystal; canonical keeps each bond once."""
    edges, _ = nearest_neighbor_edges(
        atoms=atoms, cutoff=8, max_neighbors=12, use_canonize=canonical
    )
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
