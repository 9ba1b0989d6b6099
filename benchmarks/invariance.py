"""Counts crystals whose prediction depends on how they are written, for both neighbour rules.

    python -m benchmarks.invariance --data=FOLDER --structures=200 --json=FILE

FOLDER holds NAME.json.gz tables in the layout of Matbench, of which crystals are drawn in equal
numbers. Each is rotated, shifted, re-ordered and given other cells; the prediction of one network
for it should not move. The network has random weights, and running statistics from training-mode
passes over the crystals. A crystal fails where its prediction moves by more than 1e-4 of the spread
(standard deviation) of the predictions of all crystals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from pymatgen.core import Lattice, Structure

from jaxmat.batch import batch_crystals
from jaxmat.bundles.model import Predictor, initial_variables
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.shapes import graph_sizes, prediction_batches
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.models.network import CrystalNetwork, build_network
from jaxmat.report.tables import format_table

TOLERANCE = 1e-4
_SEED = 0
_PASSES = 30  # of momentum 0.1: nothing is left of the statistics at the start
_BATCH_SIZE = 64

Rewrite = Callable[[Structure, np.random.Generator], Structure]


def rotated(structure: Structure, rng: np.random.Generator) -> Structure:
    """Returns the crystal rotated, perhaps with a reflection, which no distance or angle sees."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lattice = Lattice(structure.lattice.matrix @ rotation)
    return Structure(lattice, structure.species, structure.frac_coords)


def shifted(structure: Structure, rng: np.random.Generator) -> Structure:
    """Returns the crystal with another origin."""
    shift = rng.uniform(-2, 2, size=3)
    return Structure(structure.lattice, structure.species, structure.frac_coords + shift)


def other_images(structure: Structure, rng: np.random.Generator) -> Structure:
    """Returns the crystal with each site taken from another cell."""
    cells = rng.integers(-3, 4, size=(len(structure), 3))
    return Structure(structure.lattice, structure.species, structure.frac_coords + cells)


def reordered(structure: Structure, rng: np.random.Generator) -> Structure:
    """Returns the crystal with its sites in another order."""
    return Structure.from_sites([structure[i] for i in rng.permutation(len(structure))])


def doubled(structure: Structure, _: np.random.Generator) -> Structure:
    """Returns the cell twice as long along one axis."""
    return structure.make_supercell([2, 1, 1], in_place=False)


def skewed(structure: Structure, _: np.random.Generator) -> Structure:
    """Returns a cell of the same volume with other vectors."""
    return structure.make_supercell([[1, 1, 0], [0, 1, 0], [2, -1, 1]], in_place=False)


def skewed_and_doubled(structure: Structure, _: np.random.Generator) -> Structure:
    """Returns a skewed cell of twice the volume."""
    return structure.make_supercell([[1, 1, 0], [-1, 1, 0], [1, 0, 1]], in_place=False)


def niggli_reduced(structure: Structure, _: np.random.Generator) -> Structure:
    """Returns Niggli's reduced cell."""
    return structure.get_reduced_structure("niggli")


def lll_reduced(structure: Structure, _: np.random.Generator) -> Structure:
    """Returns the cell that Lenstra, Lenstra and Lovász's algorithm finds."""
    return structure.get_reduced_structure("LLL")


def primitive_of_doubled(structure: Structure, rng: np.random.Generator) -> Structure:
    """Returns the primitive cell that is found in a doubled one."""
    return skewed_and_doubled(structure, rng).get_primitive_structure(tolerance=1e-3)


REWRITES: tuple[Rewrite, ...] = (
    rotated,
    shifted,
    other_images,
    reordered,
    doubled,
    skewed,
    skewed_and_doubled,
    niggli_reduced,
    lll_reduced,
    primitive_of_doubled,
)


def main(argv: list[str]) -> None:
    """Measures both rules and writes the numbers down."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    structures = draw(Path(values.data), values.sets, values.structures)
    trunk = {"kind": "alignn", "width": values.width}
    network = build_network(trunk, {"property": {"kind": "linear"}})
    settings = {
        "complete_shells": GraphSettings(),
        "reference": GraphSettings(neighbor_rule="reference"),
    }
    moved = {rule: changes(network, structures, graph) for rule, graph in settings.items()}
    result = {
        "sets": values.sets,
        "structures": len(structures),
        "width": values.width,
        "tolerance": TOLERANCE,
        "rules": {rule: summaries(change) for rule, change in moved.items()},
    }
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(make_table(result["rules"]))


def draw(folder: Path, sets: Sequence[str], number: int) -> list[Structure]:
    """Returns random crystals of several tables, about equally many of each, always the same.

    Raises:
        UserError: a table has too few, or one of them cannot be read.
    """
    structures = []
    for share, name in zip(np.array_split(np.arange(number), len(sets)), sets, strict=True):
        crystals = read_table(folder / f"{name}.json.gz").structures
        if len(crystals) < len(share):
            raise UserError(f"{name} has {len(crystals)} rows, fewer than {len(share)}.")
        chosen = np.random.RandomState(_SEED).permutation(len(crystals))[: len(share)]
        structures += [crystals[i] for i in chosen]
    return structures


def changes(
    network: CrystalNetwork, structures: Sequence[Structure], settings: GraphSettings
) -> dict[str, np.ndarray]:
    """Returns how far the predictions move when crystals are written in other ways.

    Args:
        network: it gets random weights.
        structures: crystals.
        settings: how structures become graphs.

    Returns:
        Name of the rewriting → size of the change, in units of the spread, [structures].
    """
    rng = np.random.default_rng(_SEED)
    written = [*structures, *(rewrite(s, rng) for rewrite in REWRITES for s in structures)]
    graphs = list(build_graphs(written, settings))
    data = Dataset(graphs, np.full((len(graphs), 1), np.nan))
    variables = usual_variables(network, data.take(np.arange(len(structures))))
    prediction = Predictor(network)(variables, data)[:, 0]
    first, *others = prediction.reshape(-1, len(structures))
    return {
        rewrite.__name__: np.abs(other - first) / np.std(first)
        for rewrite, other in zip(REWRITES, others, strict=True)
    }


def usual_variables(network: CrystalNetwork, data: Dataset) -> dict[str, Any]:
    """Returns random weights, with running statistics from passes over crystals."""
    variables = initial_variables(network, data, _SEED)
    apply = jax.jit(lambda v, batch: network.apply(v, batch, train=True, mutable="batch_stats")[1])
    plan = prediction_batches(graph_sizes(data.graphs), _BATCH_SIZE)
    for step in range(_PASSES):
        indices, shape = plan[step % len(plan)]
        chosen = data.take(indices)
        variables |= apply(variables, batch_crystals(chosen.graphs, chosen.target, shape))
    return variables


def summaries(change: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Returns, for each rewriting and for all of them, how many crystals fail and by how much."""
    worst = np.max(list(change.values()), axis=0)
    return {
        name: {
            "fail": int(np.sum(size > TOLERANCE)),
            "median": float(np.median(size)),
            "worst": float(np.max(size)),
        }
        for name, size in {**change, "any of them": worst}.items()
    }


def make_table(rules: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Returns the table for people, in Markdown: a row for each rewriting."""
    names = next(iter(rules.values()))
    return format_table(
        [
            {"written otherwise": name.replace("_", " ")}
            | {
                f"{rule}: {what}": value if what == "fail" else f"{value:.1e}"
                for rule, summary in rules.items()
                for what, value in summary[name].items()
            }
            for name in names
        ]
    )


def _define_flags() -> None:
    sets = ["dc", "pz", "gv", "ph", "ebg", "bg", "fe", "jarvis2d"]
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_list("sets", sets, "Names of tables, without .json.gz.")
    flags.DEFINE_integer("structures", 200, "Crystals in all.")
    flags.DEFINE_integer("width", 64, "Of the network.")
    flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


if __name__ == "__main__":
    _define_flags()
    run_program(main)
