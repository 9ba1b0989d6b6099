"""The small golden models against the reference; benchmarks/parity.py does it at full size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from benchmarks import golden
from jaxmat.crystals.graph import CrystalGraph
from jaxmat.experiments import defaults
from jaxmat.experiments.recipe import Constants, Recipe
from jaxmat.models.trunk import Groups
from jaxmat.training.parallel import choose_placement
from jaxmat.transfer.strategies import Strategy

GRAPHS = {"single": "graphs_canonical.npz", "mpt": "graphs_noncanonical.npz"}
FOLDER = Path(os.environ.get("JAXMAT_GOLDEN", Path(__file__).parents[2] / "../shared/reference"))
FINE_TUNED = FOLDER / "golden/train_mptft_onecycle.npz"
RECIPES = {"single": golden.SINGLE, "mpt": golden.MULTI}


class Case(NamedTuple):
    model: golden.Model
    crystals: list[CrystalGraph]
    results: golden.Arrays
    recipe: golden.Recipe

    @property
    def mask(self) -> np.ndarray:
        return self.results.get("mask", np.ones_like(self.results["eval"]))

    def batch(self) -> golden.CrystalBatch:
        chosen = self.results["batch_indices"]
        target = self.results["targets"].reshape(len(chosen), -1)
        target = np.where(self.mask[chosen] > 0, target, np.nan)
        return golden.together([self.crystals[i] for i in chosen], target)


@pytest.fixture(scope="module", params=GRAPHS)
def case(request, golden_folder) -> Case:
    name = request.param
    return Case(
        golden.read_model(golden_folder / f"{name}_weights.npz"),
        golden.golden_crystals(golden.read_arrays(golden_folder / GRAPHS[name])),
        golden.read_arrays(golden_folder / f"{name}.npz"),
        RECIPES[name],
    )


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)]
)


@PRECISIONS
def test_predictions_of_all_crystals(dtype, tolerance, case):
    batch = golden.together(case.crystals, np.full_like(case.mask, np.nan))
    with jax.enable_x64(dtype is np.float64):
        prediction = jax.jit(case.model.network.apply)(case.model.cast(dtype), batch)
    assert prediction.dtype == dtype
    found = np.array(prediction[: len(case.crystals)]) * case.mask
    assert golden.difference(found, case.results["eval"]) < tolerance


@PRECISIONS
def test_training_mode_and_running_statistics(dtype, tolerance, case):
    chosen, expected = case.results["batch_indices"], case.results["train_mode_batch"]
    with jax.enable_x64(dtype is np.float64):
        run = jax.jit(case.model.network.apply, static_argnames=("train", "mutable"))
        variables = case.model.cast(dtype)
        output, updated = run(variables, case.batch(), train=True, mutable="batch_stats")
    assert output.dtype == dtype
    output = np.array(output[:-1]) * case.mask[chosen]
    assert golden.difference(output, expected.reshape(output.shape)) < tolerance
    after = case.model.translate(case.results, "running_after")
    stats = golden.flat(updated)
    assert stats.keys() == after.keys()
    for leaf in stats:
        assert golden.difference(stats[leaf], after[leaf]) < tolerance, leaf


def test_ten_steps_of_adamw_with_onecycle(case, float64):
    recipe = case.recipe._replace(onecycle_steps=10)
    steps = list(golden.train(case.model, case.batch(), recipe, steps=10))
    losses = np.array([step.loss for step in steps])
    np.testing.assert_allclose(losses, case.results["losses"], rtol=1e-10)

    gradient = case.model.translate(case.results, "grad0")
    largest = max(np.abs(leaf).max() for leaf in gradient.values())
    for leaf, found in steps[0].gradient.items():
        # Torch has no gradient at all for what nothing depends on.
        expected = gradient.get(leaf, np.zeros_like(found))
        assert np.abs(found - expected).max() < 1e-12 * largest, leaf

    state = steps[-1].state
    after = golden.flat({"params": state.params, "batch_stats": state.batch_stats})
    expected = case.model.translate(case.results, "state_after_10")
    assert after.keys() == expected.keys()
    for leaf in after:
        assert golden.difference(after[leaf], expected[leaf]) < 1e-8, leaf


def population_losses(model: golden.Model, batch: golden.CrystalBatch) -> np.ndarray:
    """Losses of ten published multi-property steps of a population of two, [steps, members]."""
    config = defaults.training()
    config.update(loss="l1", average="entries", schedule="onecycle")
    config.update(weight_decay=1e-2, decay="published", ema_decay=0.0)
    variables = model.cast(np.float64)
    recipe = Recipe(config, Strategy(), variables, Groups(), total_steps=10)
    constants = Constants(np.array([1e-3, 5e-4]), {})
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), variables)
    state = jax.vmap(recipe.create_state)(constants, both)
    placement = choose_placement("auto", 2)
    step = placement.compiled(recipe.step(model.network), constants)
    state = placement.put(state._replace(step=state.step[0]))
    twice = placement.feed(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), batch))
    losses = []
    for _ in range(10):
        state, metrics = step(state, twice)
        losses.append(np.array(metrics["loss"]))
    return np.array(losses)


@pytest.mark.slow
def test_a_member_of_a_population_takes_the_same_ten_steps(golden_folder, float64):
    """The multi-property network through what an experiment makes of its config."""
    model = golden.read_model(golden_folder / "mpt_weights.npz")
    results = golden.read_arrays(golden_folder / "mpt.npz")
    crystals = golden.golden_crystals(golden.read_arrays(golden_folder / GRAPHS["mpt"]))
    losses = population_losses(model, Case(model, crystals, results, golden.MULTI).batch())
    np.testing.assert_allclose(losses[:, 0], results["losses"], rtol=1e-10)
    assert (np.abs(np.diff(losses[2:])) > 1e-6).all()  # the other goes its own way


@pytest.mark.slow
@pytest.mark.skipif(not FINE_TUNED.is_file(), reason=f"no golden values at {FINE_TUNED}")
def test_a_member_takes_the_same_steps_when_fine_tuned(float64):
    """The published fine-tuning of the multi-property network, at full width."""
    folder = FINE_TUNED.parent
    results = golden.read_arrays(FINE_TUNED)
    crystals = golden.golden_crystals(golden.read_arrays(folder / GRAPHS["mpt"]))
    batch = golden.together([crystals[i] for i in results["indices"]], results["target"])
    losses = population_losses(golden.read_model(folder / "mptft_h2.npz"), batch)
    np.testing.assert_allclose(losses[:, 0], results["losses"], rtol=1e-10)
