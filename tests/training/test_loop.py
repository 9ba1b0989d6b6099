from __future__ import annotations

import itertools
import re

import jax
import numpy as np
import optax
import pytest

from jaxmat.models.alignn import published_decay_mask
from jaxmat.training.checkpoints import Checkpoints, load_variables
from jaxmat.training.loop import fit
from jaxmat.training.optimizers import make_optimizer
from jaxmat.training.schedules import onecycle, onecycle_beta1
from jaxmat.training.state import averaged_variables, create_state
from jaxmat.training.step import make_predict_step, make_train_step

TOTAL, EVERY = 20, 6


def give_nothing_up(member, reason):
    raise AssertionError(reason)


class Run:
    """A run of twenty steps in a folder, started or gone on with by `go`."""

    optimizer = make_optimizer(
        onecycle(0.05, TOTAL),
        onecycle_beta1(TOTAL),
        weight_decay=0.01,
        decay_mask=published_decay_mask,
    )

    def __init__(self, folder, train_step, predict, variables, make_batch):
        self.train_step, self.predict = train_step, predict
        self.variables, self.make_batch = variables, make_batch
        self.checkpoints = Checkpoints(folder, {"kind": "toy"})
        self.best = self.checkpoints.best_metric()
        self.records = []

    def batches_from(self, step):
        return (self.make_batch(number) for number in itertools.count(step))

    def evaluate(self, variables):
        batch = self.make_batch(1000, missing=0.0)
        error = np.abs(self.predict(variables, batch) - batch.target)[:4]
        return {"mae": float(error.mean())}

    def record(self, step, state, means):
        scores = self.evaluate(averaged_variables(state))
        self.records.append({"step": step, **means, **scores})
        if scores["mae"] < self.best:
            self.best = scores["mae"]
            self.checkpoints.keep_best(averaged_variables(state), step, self.best)

    def go(self, **options):
        state = create_state(self.variables, self.optimizer, ema=True)
        state = self.checkpoints.restore_last(state) or state
        defaults = {
            "batches_from": self.batches_from,
            "step": int(state.step),
            "total_steps": TOTAL,
            "record": self.record,
            "record_every": EVERY,
            "save": lambda state, tally: self.checkpoints.save_last(state, {"tally": tally}),
            "save_every": 5,
            "describe_batch": "crystals of batch {}".format,
            "skipped_in_a_row": 3,
            "give_up": give_nothing_up,
            "tally": self.checkpoints.said_with_last().get("tally", {}),
        }
        state, step, _ = fit(state, self.train_step, **(defaults | options))
        assert state.step == step
        return state


@pytest.fixture(scope="module")
def compiled(network, loss):
    step = make_train_step(network, Run.optimizer, loss, ema_decay=0.9)
    return jax.jit(step, donate_argnums=0), jax.jit(make_predict_step(network))


@pytest.fixture
def new_run(tmp_path, compiled, variables, make_batch):
    names = itertools.count()
    return lambda: Run(tmp_path / str(next(names)), *compiled, variables, make_batch)


def assert_same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def best_variables(run):
    return load_variables(run.checkpoints.folder / "best" / str(best_step(run)))[0]


def best_step(run):
    (place,) = (run.checkpoints.folder / "best").iterdir()
    return int(place.name)


def test_a_run_is_evaluated_saved_and_returned_at_its_end(new_run):
    run = new_run()
    state = run.go()
    assert state.step == TOTAL
    assert [record["step"] for record in run.records] == [6, 12, 18, 20]
    assert run.records[-1]["train_loss"] < run.records[0]["train_loss"]
    fresh = create_state(run.variables, run.optimizer, ema=True)
    assert_same_bits(run.checkpoints.restore_last(fresh), state)
    lowest = min(run.records, key=lambda record: record["mae"])
    assert best_step(run) == lowest["step"]
    assert run.evaluate(best_variables(run))["mae"] == lowest["mae"]


def test_training_loss_is_the_mean_since_the_last_record(new_run):
    run = new_run()
    state = create_state(run.variables, run.optimizer, ema=True)
    losses = []
    for step in range(12):
        state, metrics = run.train_step(state, run.make_batch(step))
        losses.append(float(metrics["loss"]))
    run.go()
    assert run.records[0]["train_loss"] == pytest.approx(np.mean(losses[:6]))
    assert run.records[1]["train_loss"] == pytest.approx(np.mean(losses[6:]))


@pytest.mark.parametrize("stops", [[1], [7], [6, 10, 19]])
def test_stopped_and_resumed_is_never_stopped(stops, new_run):
    whole, broken = new_run(), new_run()
    expected = whole.go()
    for stop in stops:
        state = broken.go(stop=lambda step, stop=stop: step == stop)
        assert state.step == stop
    assert_same_bits(broken.go(), expected)
    assert_same_bits(best_variables(broken), best_variables(whole))
    assert best_step(broken) == best_step(whole)
    for record in whole.records:
        assert record in broken.records


def test_killed_between_savings_and_resumed_is_never_stopped(new_run):
    whole, broken = new_run(), new_run()
    expected = whole.go()

    def killed_at_13(step):
        yield from itertools.islice(broken.batches_from(step), 13 - step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.go(batches_from=killed_at_13)
    assert_same_bits(broken.go(), expected)
    assert_same_bits(best_variables(broken), best_variables(whole))


def test_a_finished_run_does_no_more(new_run):
    run = new_run()
    expected = run.go()
    run.records.clear()
    assert_same_bits(run.go(batches_from=lambda step: iter(())), expected)
    assert run.records == []


def spoilt(run, numbers):
    """Batches of which some (steps counted from 1) have infinite targets."""

    def batches_from(step):
        for number, batch in enumerate(run.batches_from(step), start=step + 1):
            yield batch._replace(target=batch.target + np.inf) if number in numbers else batch

    return batches_from


def test_a_step_that_is_not_finite_changes_nothing_and_is_named(new_run, caplog):
    run, without = new_run(), new_run()
    state = run.go(batches_from=spoilt(run, {8, 9, 11}))

    def left_out(step):
        good = [number for number in range(TOTAL) if number not in (7, 8, 10)]
        return (without.make_batch(number) for number in good[step:])

    expected = without.go(batches_from=left_out, total_steps=TOTAL - 3)
    assert state.step == TOTAL
    assert_same_bits(state.params, expected.params)
    assert_same_bits(state.opt_state, expected.opt_state)
    warnings = [message for message in caplog.messages if "Skipped" in message]
    assert len(warnings) == 3
    assert "step 8: loss inf" in warnings[0] and "crystals of batch 7" in warnings[0]
    assert all(np.isfinite(record["train_loss"]) for record in run.records)


def test_too_many_skipped_steps_end_the_run_with_its_last_good_state(new_run):
    run, whole, reasons = new_run(), new_run(), []

    def give_up(member, reason):
        reasons.append(reason)
        return True

    run.go(batches_from=spoilt(run, {8, 9, 10}), give_up=give_up)
    (reason,) = reasons
    assert re.search(r"3 steps in a row .* step 10: .*batch 9.*learning rate", reason)
    whole.go(stop=lambda step: step == 7)
    fresh = create_state(run.variables, run.optimizer, ema=True)
    saved, good = (each.checkpoints.restore_last(fresh) for each in (run, whole))
    assert saved.step == 10 and good.step == 7
    assert_same_bits(saved.params, good.params)
    # The mended run goes on.
    assert run.go().step == TOTAL


def fit_pair(run, spoilt_steps, **options):
    """Trains a pair, of which one has batches that are spoilt."""
    state = create_state(run.variables, run.optimizer, ema=True)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), state)

    def pairs(step):
        for one, other in zip(spoilt(run, spoilt_steps)(step), run.batches_from(step), strict=True):
            yield jax.tree.map(lambda *leaves: np.stack(leaves), one, other)

    defaults = {
        "step": 0,
        "total_steps": 4,
        "record_every": 4,
        "save": lambda state, tally: None,
        "save_every": 4,
        "describe_batch": str,
        "skipped_in_a_row": 2,
        "give_up": give_nothing_up,
    }
    return fit(both, jax.jit(jax.vmap(run.train_step)), pairs, **(defaults | options))


def test_members_of_a_population_skip_each_for_itself(new_run, caplog):
    means = []
    after, *_ = fit_pair(new_run(), {2}, record=lambda step, state, mean: means.append(mean))
    moments = optax.tree.get(after.opt_state, "mu")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.params, moments)))
    assert means[0]["train_loss"].shape == (2,)
    assert np.isfinite(means[0]["train_loss"]).all()
    assert sum("Skipped" in message for message in caplog.messages) == 1


def test_a_member_that_breaks_down_is_given_up_and_the_other_goes_on(new_run, caplog):
    given_up = {}

    def give_up(member, reason):
        given_up[member] = reason
        return member == 1

    options = {"record": lambda step, state, mean: False, "save_every": 1, "give_up": give_up}
    _, step, _ = fit_pair(new_run(), {2, 3, 4}, **options)
    assert step == 4
    assert set(given_up) == {0} and "2 steps in a row" in given_up[0] and "step 3" in given_up[0]
    # Nothing more is said of it.
    assert sum("Skipped" in message for message in caplog.messages) == 2


def test_the_end_comes_where_it_is_said_that_nobody_is_left(new_run):
    saved = []
    options = {"record": lambda *_: False, "save": lambda *one: saved.append(one), "save_every": 1}
    _, step, _ = fit_pair(new_run(), {2, 3}, given_up=[1], give_up=lambda *_: True, **options)
    assert step == len(saved) == 3
