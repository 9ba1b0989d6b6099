"""Compares jaxmat with the reference ALIGNN, number by number, and prints one table.

    python -m benchmarks.parity --golden=FOLDER --json=FILE

FOLDER holds golden/ and golden_small/, which the reference computed. Exits with 1 where a
tolerance is missed, with 2 where a file is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from pymatgen.core import Structure

from benchmarks import golden
from jaxmat.batch import CrystalBatch
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs, plain_graph
from jaxmat.crystals.neighbors import Bonds, reference_shells
from jaxmat.training.schedules import onecycle, onecycle_beta1

_GOLDEN = flags.DEFINE_string(
    "golden", None, "Folder with golden/ and golden_small/.", required=True
)
_JSON = flags.DEFINE_string("json", None, "File to write the numbers to.", required=True)


class Kind(NamedTuple):
    """A published kind of model and the golden numbers of it."""

    name: str
    weights: str
    forward: str
    canonical: bool
    recipe: golden.Recipe


class Run(NamedTuple):
    """A golden training run."""

    file: str
    kind: Kind
    onecycle: bool
    last_layer_only: bool = False


class Row(NamedTuple):
    """One number of the table; smaller is better."""

    group: str
    name: str
    value: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the tolerance is met; NaN never is."""
        return self.value <= self.tolerance


_SINGLE = Kind("single", "single_random.npz", "forward_single.npz", True, golden.SINGLE)
_MPT = Kind("mpt", "mpt_h2_random.npz", "forward_mpt_h2.npz", False, golden.MULTI)
_MPTFT = Kind("mptft", "mptft_h2.npz", "forward_mptft_h2.npz", False, golden.MULTI)
_KINDS = (_SINGLE, _MPT, _MPTFT)
_RUNS = (
    Run("train_single_onecycle.npz", _SINGLE, onecycle=True),
    Run("train_single_adamw.npz", _SINGLE, onecycle=False),
    Run("train_single_lastlayer.npz", _SINGLE, onecycle=False, last_layer_only=True),
    Run("train_mpt_onecycle.npz", _MPT, onecycle=True),
    Run("train_mptft_onecycle.npz", _MPTFT, onecycle=True),
)
_GRAPHS = {True: "graphs_canonical.npz", False: "graphs_noncanonical.npz"}
_SCHEDULE = "onecycle_500x45_lr1e-3.npz"
_SMALL_WEIGHTS = "single_weights.npz"


def main(argv: list[str]) -> int:
    """Runs all comparisons."""
    folder, small = Path(_GOLDEN.value) / "golden", Path(_GOLDEN.value) / "golden_small"
    names = [*_GRAPHS.values(), _SCHEDULE, "structures.json", *(run.file for run in _RUNS)]
    names += [file for kind in _KINDS for file in (kind.weights, kind.forward)]
    needed = [folder / name for name in names] + [small / _SMALL_WEIGHTS]
    if missing := [str(file) for file in needed if not file.is_file()]:
        print("error: missing golden files:", *missing, sep="\n  ", file=sys.stderr)
        return 2
    rows = []
    print(f"{'group':12} {'what':58} {'value':>9} {'at most':>8}")
    with jax.enable_x64(True):
        for row in compare(folder, small):
            rows.append(row)
            verdict = "" if row.holds else "  MISSED"
            print(f"{row.group:12} {row.name:58} {row.value:9.1e} {row.tolerance:8.0e}{verdict}")
    missed = sum(not row.holds for row in rows)
    print(f"{len(rows)} numbers, {missed} beyond their tolerance")
    content = [row._asdict() | {"holds": row.holds} for row in rows]
    Path(_JSON.value).write_text(json.dumps(content, indent=1) + "\n")
    return int(missed > 0)


def compare(folder: Path, small: Path) -> Iterator[Row]:
    """Yields all numbers."""
    yield from schedule_rows(golden.read_arrays(folder / _SCHEDULE))
    structures = golden.read_structures(folder)
    for canonical, file in _GRAPHS.items():
        graphs = golden.read_arrays(folder / file)
        wrong = [i for i, x in structures.items() if not same_graph(graphs, i, x, canonical)]
        yield Row("graphs", f"{file}: wrong ones of {len(structures)}", len(wrong), 0)
    model = golden.read_model(small / _SMALL_WEIGHTS)
    for rule, canonical in (("reference", True), ("reference", False), ("complete_shells", True)):
        settings = GraphSettings(rule, canonical=canonical)
        compressed = list(build_graphs(structures.values(), settings))
        plain = list(build_graphs(structures.values(), replace(settings, compress=False)))
        label = f"{rule}{'' if canonical else ', non-canonical'}"
        yield from compression_rows(model, plain, compressed, label)
    for kind in _KINDS:
        model = golden.read_model(folder / kind.weights)
        results = golden.read_arrays(folder / kind.forward)
        for compress in (False, True):
            settings = GraphSettings("reference", canonical=kind.canonical, compress=compress)
            crystals = list(build_graphs(structures.values(), settings))
            label = f"{kind.name}, {'compressed' if compress else 'plain'}"
            yield from forward_rows(model, results, crystals, label)
            for run in _RUNS:
                if run.kind == kind:
                    results = golden.read_arrays(folder / run.file)
                    yield from training_rows(run, model, results, crystals, compress)


def schedule_rows(published: golden.Arrays) -> Iterator[Row]:
    """Yields how far learning rate and beta1 are from those of a published run."""
    steps = len(published["lr"])
    found = {"lr": onecycle(1e-3, steps), "beta1": onecycle_beta1(steps)}
    for name, schedule in found.items():
        error = np.abs(jax.vmap(schedule)(jnp.arange(steps)) / published[name] - 1).max()
        yield Row("schedule", f"{name} of {steps} steps, relative", float(error), 1e-12)


def same_graph(graphs: golden.Arrays, i: int, structure: Structure, canonical: bool) -> bool:
    """Whether a structure has the golden sites, bonds and angles, each as often."""
    number = np.array([site.specie.Z for site in structure])
    expected = golden.read_bonds(graphs, i)
    found = reference_shells(structure, 12, 8.0, canonical)
    if not np.array_equal(number, graphs[f"s{i}_z"]) or not golden.same_bonds(found, expected):
        return False
    plain = plain_graph([number], [found], line_graph_selves=False)
    pairs, cosines = zip(
        _sorted_angles(found, plain.angle_sender, plain.angle_receiver, plain.angle_cosine),
        _sorted_angles(expected, *(graphs[f"s{i}_{key}"] for key in ("lsrc", "ldst", "cos64"))),
        strict=True,
    )
    return np.array_equal(*pairs) and np.allclose(*cosines, rtol=0, atol=1e-9)


def _sorted_angles(
    bonds: Bonds, sender: np.ndarray, receiver: np.ndarray, cosine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns angles in the order of their bonds, and their cosines."""
    rank = np.argsort(golden.bond_order(bonds))
    order = np.lexsort((rank[receiver], rank[sender]))
    return np.stack([rank[sender], rank[receiver]])[:, order], cosine[order]


def compression_rows(
    model: golden.Model,
    plain: Sequence[CrystalGraph],
    compressed: Sequence[CrystalGraph],
    label: str,
) -> Iterator[Row]:
    """Yields how far compressed crystals are from plain ones, each alone and all together."""
    target = np.random.default_rng(0).normal(size=(len(plain), 1))
    variables = model.cast(np.float64)
    evaluate = jax.jit(partial(_everything, model.network))
    for how, batches in (
        ("each alone", [golden.alone(graphs, target) for graphs in (plain, compressed)]),
        ("together", [[golden.together(graphs, target)] for graphs in (plain, compressed)]),
    ):
        worst: dict[str, float] = {}
        for one, other in zip(*batches, strict=True):
            expected, found = (evaluate(variables, batch) for batch in (one, other))
            for what in expected:
                error = _tree_difference(found[what], expected[what])
                worst[what] = max(worst.get(what, 0.0), error)
        for what, error in worst.items():
            yield Row("compression", f"{label}, {how}: {what}", error, 1e-9)


def _everything(network: Any, variables: Any, batch: CrystalBatch) -> dict[str, Any]:
    """Returns predictions, gradients and running statistics, in evaluation and in training."""

    def loss(params: Any, train: bool) -> Any:
        output, updated = network.apply(
            variables | {"params": params}, batch, train=train, mutable="batch_stats"
        )
        numerator, denominator = golden.SINGLE.loss()(output, batch)
        return numerator / denominator, (output * batch.crystal_mask[:, None], updated)

    gradient = jax.grad(loss, has_aux=True)
    eval_gradient, (eval_output, _) = gradient(variables["params"], False)
    train_gradient, (train_output, updated) = gradient(variables["params"], True)
    return {
        "predictions": eval_output,
        "gradients": eval_gradient,
        "predictions, training mode": train_output,
        "gradients, training mode": train_gradient,
        "running statistics": updated,
    }


def _tree_difference(found: Any, expected: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(golden.difference, found, expected)))


def forward_rows(
    model: golden.Model, results: golden.Arrays, crystals: Sequence[CrystalGraph], label: str
) -> Iterator[Row]:
    """Yields how far predictions and running statistics are from the reference's."""
    chosen = results["batch16_indices"]
    mask = results.get("mask", np.ones_like(results["eval_single_f64"]))
    no_labels = np.full_like(mask, np.nan)
    for bits, tolerance in ((32, 1e-5), (64, 1e-9)):
        with jax.enable_x64(bits == 64):
            predict = jax.jit(model.network.apply, static_argnames=("train", "mutable"))
            variables = model.cast(np.dtype(f"float{bits}").type)
            batch = golden.together([crystals[i] for i in chosen], no_labels[chosen])
            output, updated = predict(variables, batch, train=True, mutable="batch_stats")
            found = {
                "eval_single": [
                    predict(variables, b)[0] for b in golden.alone(crystals, no_labels)
                ],
                "eval_batch16": predict(variables, batch)[:-1],
                "train_mode_batch16": output[:-1],
            }
        for name, outputs in found.items():
            rows = chosen if "batch" in name else slice(None)
            found_outputs = np.array(outputs) * mask[rows]
            expected = results[f"{name}_f{bits}"].reshape(found_outputs.shape)
            error = golden.difference(found_outputs, expected)
            yield Row("forward", f"{label}: {name}_f{bits}", error, tolerance)
        expected = model.translate(results, "afterpass")
        stats = golden.flat(updated)
        error = max(golden.difference(stats[leaf], expected[leaf]) for leaf in stats)
        yield Row("forward", f"{label}: running statistics, f{bits}", error, tolerance)


def training_rows(
    run: Run,
    model: golden.Model,
    results: golden.Arrays,
    crystals: Sequence[CrystalGraph],
    compress: bool,
) -> Iterator[Row]:
    """Yields how far the steps of a training run are from the reference's.

    Parameters are compared by their sums. Biases before a batch norm have no true gradient:
    AdamW turns the rounding noise of theirs into steps, in float64 far below the tolerance.
    """
    label = f"{run.file[6:-4]}, {'compressed' if compress else 'plain'}"
    chosen, losses = results["indices"], results["losses"]
    target = results["target"].reshape(len(chosen), -1)
    target = np.where(results.get("mask", np.ones_like(target)) > 0, target, np.nan)
    batch = golden.together([crystals[i] for i in chosen], target)
    recipe = run.kind.recipe._replace(onecycle_steps=len(losses) if run.onecycle else None)
    params = model.variables["params"]
    trainable = None
    if run.last_layer_only:
        trainable = {
            part: jax.tree.map(lambda _, p=part: p != "trunk", params[part]) for part in params
        }

    gradient = golden.first_gradient(model, batch, recipe, trainable)
    error = _gradient_difference(gradient, model, results)
    yield Row("training", f"{label}: first gradient, relative", error, 1e-8)
    loss_error = parameter_error = statistics_error = 0.0
    for step, (loss, state) in enumerate(
        golden.train(model, batch, recipe, len(losses), trainable)
    ):
        loss_error = max(loss_error, abs(loss / losses[step] - 1))
        parameter_error = max(parameter_error, _sum_difference(state.params, model, results, step))
        sums = model.translate(results, f"bsum/{step}")
        stats = golden.flat({"batch_stats": state.batch_stats})
        error = max(golden.difference(stats[leaf].sum(), sums[leaf]) for leaf in stats)
        statistics_error = max(statistics_error, error)
    yield Row("training", f"{label}: {len(losses)} losses, relative", loss_error, 1e-8)
    yield Row("training", f"{label}: parameter sums, relative", parameter_error, 1e-8)
    yield Row("training", f"{label}: running statistics, sums", statistics_error, 1e-8)
    if run.last_layer_only:
        moved = jax.tree.map(
            lambda old, new: bool(np.any(old != new)), params["trunk"], state.params["trunk"]
        )
        yield Row("training", f"{label}: frozen leaves that moved", sum(jax.tree.leaves(moved)), 0)


def _gradient_difference(
    gradient: dict[str, np.ndarray], model: golden.Model, results: golden.Arrays
) -> float:
    """Returns the greatest relative difference of gradients and of their norms, over the leaves.

    Leaves with next to no gradient are measured by a millionth of the whole. Torch computes no
    gradient (NaN here) where nothing depends on a parameter or it is frozen: ours is zero there.
    """
    entries = model.translate(results, "grad/0")
    norms = {leaf: np.nan_to_num(x) for leaf, x in model.translate(results, "gradnorm/0").items()}
    assert norms.keys() == gradient.keys(), "golden norms cover every parameter"
    floor = 1e-6 * np.linalg.norm(list(norms.values()))
    errors = [
        abs(np.linalg.norm(gradient[leaf]) - norm) / max(norm, floor)
        for leaf, norm in norms.items()
    ]
    errors += [
        np.abs(gradient[leaf] - expected).max() / max(np.abs(expected).max(), floor)
        for leaf, expected in entries.items()
    ]
    return float(max(errors))


def _sum_difference(params: Any, model: golden.Model, results: golden.Arrays, step: int) -> float:
    """Returns the greatest relative difference of sums, sums of sizes and sums of squares."""
    total, sizes, squares = (
        model.translate(results, f"{group}/{step}") for group in ("psum", "pabs", "psq")
    )
    return max(
        max(
            abs(leaf.sum() - total[path]) / sizes[path],
            abs(np.abs(leaf).sum() / sizes[path] - 1),
            abs(np.square(leaf).sum() / squares[path] - 1),
        )
        for path, leaf in golden.flat({"params": params}).items()
    )


if __name__ == "__main__":
    app.run(main)
