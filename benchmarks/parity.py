"""Compares jaxmat with the reference ALIGNN, number by number, and prints one table.

    python -m benchmarks.parity --golden=FOLDER --json=FILE

FOLDER holds golden/ and golden_small/, which the reference computed; the extra "convert" is needed
for a *.pt file in it. Exits with 1 where a tolerance is missed, with 2 where a file is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from pymatgen.core import Structure

from benchmarks import golden
from jaxmat.bundles.bundle import read_bundle
from jaxmat.bundles.model import Predictor
from jaxmat.convert.files import read_state_dict
from jaxmat.convert.models import bundle_to_torch, torch_to_bundle
from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs, plain_graph
from jaxmat.crystals.neighbors import reference_shells
from jaxmat.data.batches import Dataset
from jaxmat.data.targets import TargetTransform
from jaxmat.models.network import make_trunk
from jaxmat.training.schedules import onecycle, onecycle_beta1
from jaxmat.transfer.strategies import STRATEGIES, trainable_mask

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
# Å and cosine; above what the six decimals of coordinates leave, below real differences.
_FINE_TOLERANCE = 1e-4


def main(argv: list[str]) -> int:
    """Runs all comparisons."""
    folder, small = Path(_GOLDEN.value) / "golden", Path(_GOLDEN.value) / "golden_small"
    names = [*_GRAPHS.values(), _SCHEDULE, "structures.json", *(run.file for run in _RUNS)]
    names += [file for kind in _KINDS for file in (kind.weights, kind.forward)]
    needed = [folder / name for name in names] + [small / _SMALL_WEIGHTS]
    if missing := [str(file) for file in needed if not file.is_file()]:
        print("error: missing golden files:", *missing, sep="\n  ", file=sys.stderr)
        return 2
    logging.set_verbosity(logging.WARNING)  # JAX tells which accelerators it looked for
    rows = []
    print(f"{'group':12} {'what':75} {'value':>9} {'at most':>8}")
    with jax.enable_x64(True):
        for row in compare(folder, small):
            rows.append(row)
            verdict = "" if row.holds else "  MISSED"
            print(f"{row.group:12} {row.name:75} {row.value:9.1e} {row.tolerance:8.0e}{verdict}")
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
        right = [_same_graph(graphs, i, crystal, canonical) for i, crystal in structures.items()]
        yield Row("graphs", f"{file}: wrong ones of {len(right)}", right.count(False), 0)
    model = golden.read_model(small / _SMALL_WEIGHTS)
    for rule, canonical in (("reference", True), ("reference", False), ("complete_shells", True)):
        settings = GraphSettings(rule, canonical=canonical)
        yield from compression_rows(model, list(structures.values()), settings)
    for kind in _KINDS:
        model = golden.read_model(folder / kind.weights)
        forward = golden.read_arrays(folder / kind.forward)
        yield from conversion_rows(folder / kind.weights, forward, list(structures.values()))
        for compress in (False, True):
            settings = GraphSettings("reference", canonical=kind.canonical, compress=compress)
            crystals = list(build_graphs(structures.values(), settings))
            label = "compressed" if compress else "plain"
            yield from forward_rows(model, forward, crystals, f"{kind.name}, {label}")
            for run in (run for run in _RUNS if run.kind == kind):
                results = golden.read_arrays(folder / run.file)
                name = f"{run.file.removeprefix('train_').removesuffix('.npz')}, {label}"
                yield from training_rows(run, model, results, crystals, name)


def schedule_rows(published: golden.Arrays) -> Iterator[Row]:
    """Yields how far learning rate and beta1 are from those of a published run."""
    steps = len(published["lr"])
    found = {"lr": onecycle(1e-3, steps), "beta1": onecycle_beta1(steps)}
    for name, schedule in found.items():
        error = np.abs(jax.vmap(schedule)(jnp.arange(steps)) / published[name] - 1).max()
        yield Row("schedule", f"{name} of {steps} steps, relative", float(error), 1e-12)


def _same_graph(graphs: golden.Arrays, i: int, structure: Structure, canonical: bool) -> bool:
    """Whether a structure has the golden sites, bonds and angles, each as often."""
    number = np.array([site.specie.Z for site in structure])
    crystal = Content.of(structure)
    bonds = reference_shells(crystal, max_neighbors=12, cutoff=8.0, canonical=canonical)
    return (
        np.array_equal(number, graphs[f"s{i}_z"])
        and golden.same_bonds(bonds, golden.read_bonds(graphs, i))
        and golden.same_angles(graphs, i, bonds, plain_graph([number], [bonds], False))
    )


def compression_rows(
    model: golden.Model, structures: Sequence[Structure], settings: GraphSettings
) -> Iterator[Row]:
    """Yields how far compressed crystals are from plain ones, each alone and all together.

    What compression does to the network is seen on levelled graphs: the plain graph with the mean
    length and cosine of each class. As given, the bonds of a class differ by the rounding of
    coordinates, with complete shells by anything up to the tolerance of classes; so there training
    mode is held to 1e-9 at a tolerance of 1e-4 Å, and the default's own error is shown beside. A
    crystal alone in training mode is left out as given: its batch norms may see two or three rows
    that are equal up to rounding, and divide that rounding by itself.
    """
    given = list(build_graphs(structures, replace(settings, compress=False)))
    fine = replace(settings, tolerance=_FINE_TOLERANCE)
    compressed, finely = (list(build_graphs(structures, one)) for one in (settings, fine))
    level = [golden.levelled(crystal, settings.tolerance) for crystal in given]
    rule = settings.neighbor_rule + ("" if settings.canonical else ", non-canonical")
    differences = partial(_worst_differences, model, len(structures))
    everything, evaluation, training = "", "evaluation", "training"
    for kind, plain, other, modes in (
        ("levelled", level, compressed, {"alone": everything, "together": everything}),
        ("as given", given, compressed, {"alone": evaluation, "together": evaluation}),
        (f"as given, {_FINE_TOLERANCE:g} Å", given, finely, {"together": training}),
        (f"as given, {settings.tolerance:g} Å", given, compressed, {"together": training}),
    ):
        limit = 1e-7 if other is compressed and modes == {"together": training} else 1e-9
        for how, mode in modes.items():
            for what, error in differences(plain, other, how).items():
                if what.startswith(mode):
                    yield Row("compression", f"{rule}, {kind}, {how}: {what}", error, limit)


def _worst_differences(
    model: golden.Model,
    count: int,
    plain: Sequence[CrystalGraph],
    compressed: Sequence[CrystalGraph],
    how: str,
) -> dict[str, float]:
    """Returns the greatest difference over crystals, alone or together, of each quantity."""
    target = np.random.default_rng(0).normal(size=(count, 1))
    variables = model.cast(np.float64)
    evaluate = jax.jit(partial(golden.evaluate, model.network))
    worst: dict[str, float] = {}
    for one, other in zip(
        *(
            golden.alone(crystals, target)
            if how == "alone"
            else [golden.together(crystals, target)]
            for crystals in (plain, compressed)
        ),
        strict=True,
    ):
        expected, found = (evaluate(variables, batch) for batch in (one, other))
        for what, tree in jax.tree.map(golden.difference, found, expected).items():
            worst[what] = max(worst.get(what, 0.0), *jax.tree.leaves(tree))
    return worst


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
        after, stats = model.translate(results, "afterpass"), golden.flat(updated)
        error = max(golden.difference(stats[leaf], after[leaf]) for leaf in stats)
        yield Row("forward", f"{label}: running statistics, f{bits}", error, tolerance)


def conversion_rows(
    weights: Path, results: golden.Arrays, structures: Sequence[Structure]
) -> Iterator[Row]:
    """Yields how far a model made a bundle is from the reference, and what going back changes."""
    expected = results["eval_single_f32"].reshape(len(structures), -1)
    mask = results.get("mask", np.ones_like(expected))
    heads = [TargetTransform(f"head_{i}", "1", False, 0.0, 1.0) for i in range(mask.shape[1])]
    for file in (weights, weights.with_suffix(".pt")):
        if not file.is_file():
            continue
        with TemporaryDirectory() as name, jax.enable_x64(False):
            folder, back = Path(name, "bundle"), Path(name, file.name)
            torch_to_bundle(file, folder, heads)
            bundle_to_torch(folder, back)
            model, variables, *_ = read_bundle(folder)
            before, after = (_bytes(read_state_dict(state)) for state in (file, back))
            data = Dataset(list(build_graphs(structures, model.graph)), np.full_like(mask, np.nan))
            found = Predictor(model.network())(variables, data) * mask
        error = golden.difference(found, expected)
        yield Row("conversion", f"{file.name}: predictions of the bundle", error, 1e-5)
        changed = len(before.items() ^ after.items())
        yield Row("conversion", f"{file.name}: entries changed there and back", changed, 0)


def _bytes(arrays: golden.Arrays) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(x.dtype), x.shape, x.tobytes()) for name, x in arrays.items()}


def training_rows(
    run: Run,
    model: golden.Model,
    results: golden.Arrays,
    crystals: Sequence[CrystalGraph],
    label: str,
) -> Iterator[Row]:
    """Yields how far the steps of a training run are from the reference's.

    Parameters are compared by their sums. Biases before a batch norm have no true gradient:
    AdamW turns the rounding noise of theirs into steps, in float64 far below the tolerance.
    """
    chosen, losses = results["indices"], results["losses"]
    target = results["target"].reshape(len(chosen), -1)
    target = np.where(results.get("mask", np.ones_like(target)) > 0, target, np.nan)
    batch = golden.together([crystals[i] for i in chosen], target)
    recipe = run.kind.recipe._replace(onecycle_steps=len(losses) if run.onecycle else None)
    params = model.variables["params"]
    last_layer, groups = STRATEGIES["last_layer"], make_trunk(model.network.trunk_options).groups()
    trainable = trainable_mask(params, last_layer, groups) if run.last_layer_only else None
    errors = []
    for step, done in enumerate(golden.train(model, batch, recipe, len(losses), trainable)):
        if step == 0:
            error = _gradient_difference(done.gradient, model, results)
            yield Row("training", f"{label}: first gradient, relative", error, 1e-8)
        sums = model.translate(results, f"bsum/{step}")
        stats = golden.flat({"batch_stats": done.state.batch_stats})
        errors.append(
            (
                abs(done.loss / losses[step] - 1),
                _sum_difference(done.state.params, model, results, step),
                max(golden.difference(stats[leaf].sum(), sums[leaf]) for leaf in stats),
            )
        )
    names = ("losses, relative", "parameter sums, relative", "sums of running statistics")
    for name, error in zip(names, np.max(errors, axis=0), strict=True):
        yield Row("training", f"{label}: {len(losses)} {name}", float(error), 1e-8)
    if run.last_layer_only:
        trunks = golden.flat(params["trunk"]), golden.flat(done.state.params["trunk"])
        moved = sum(bool(np.any(trunks[0][leaf] != trunks[1][leaf])) for leaf in trunks[0])
        yield Row("training", f"{label}: frozen leaves that moved", moved, 0)


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
    return float(np.max(errors))


def _sum_difference(params: Any, model: golden.Model, results: golden.Arrays, step: int) -> float:
    """Returns the greatest relative difference of sums, sums of sizes and sums of squares."""
    total, sizes, squares = (
        model.translate(results, f"{group}/{step}") for group in ("psum", "pabs", "psq")
    )
    errors = [
        (
            (leaf.sum() - total[path]) / sizes[path],
            np.abs(leaf).sum() / sizes[path] - 1,
            np.square(leaf).sum() / squares[path] - 1,
        )
        for path, leaf in golden.flat({"params": params}).items()
    ]
    return float(np.abs(errors).max())


if __name__ == "__main__":
    app.run(main)
