from __future__ import annotations

import io
import itertools
import json
import logging
import math
import sys

import jax
import numpy as np
import pytest

from jaxmat.errors import UserError
from jaxmat.training.checkpoints import Checkpoints, load_variables
from jaxmat.training.loop import fit, json_lines
from jaxmat.training.optimizers import make_optimizer, published_decay_mask
from jaxmat.training.progress import Progress
from jaxmat.training.schedules import onecycle, onecycle_beta1
from jaxmat.training.state import averaged_variables, create_state
from jaxmat.training.step import make_predict_step, make_train_step

TOTAL, EVERY = 20, 6


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
        self.records = []

    def batches_from(self, step):
        return (self.make_batch(number) for number in itertools.count(step))

    def evaluate(self, variables):
        batch = self.make_batch(1000, missing=0.0)
        error = np.abs(self.predict(variables, batch) - batch.target)[:4]
        return {"mae": float(error.mean())}

    def go(self, **options):
        state = create_state(self.variables, self.optimizer, ema=True)
        state = self.checkpoints.restore_last(state) or state
        defaults = {
            "batches_from": self.batches_from,
            "total_steps": TOTAL,
            "evaluate": self.evaluate,
            "evaluate_every": EVERY,
            "monitor": "mae",
            "checkpoints": self.checkpoints,
            "save_every": 5,
            "log": self.records.append,
        }
        return fit(state, self.train_step, **(defaults | options))


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
        assert any(record["mae"] == other["mae"] for other in broken.records)


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


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(new_run):
    run = new_run()

    def spoilt_batches(step):
        for number, batch in enumerate(run.batches_from(step), start=step + 1):
            yield batch._replace(target=batch.target + np.inf) if number == 8 else batch

    with pytest.raises(UserError, match=r"at step 8: loss .*Lower the learning rate"):
        run.go(batches_from=spoilt_batches)
    state = create_state(run.variables, run.optimizer, ema=True)
    assert run.checkpoints.restore_last(state).step == 5


def test_a_metric_that_is_not_a_number_is_never_best(new_run):
    run = new_run()
    run.go(evaluate=lambda variables: {"mae": math.nan})
    assert run.checkpoints.best_metric() == math.inf


def test_averages_are_what_is_evaluated(new_run):
    run = new_run()
    seen = []
    state = run.go(evaluate=lambda variables: seen.append(variables) or {"mae": 1.0})
    assert_same_bits(seen[-1], averaged_variables(state))


def test_the_log_is_one_json_object_a_line(tmp_path):
    write = json_lines(tmp_path / "log.jsonl")
    write({"step": 1, "mae": 0.5})
    write({"step": 2, "mae": math.nan})
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "mae": 0.5},
        {"step": 2, "mae": None},
    ]


def show_four_steps(monkeypatch, seconds):
    """Ten crystals a step, `seconds` after the start."""
    clock = iter([0.0] + [seconds] * 10)
    monkeypatch.setattr("jaxmat.training.progress.time.monotonic", lambda: next(clock))
    progress = Progress(100, 1100)
    progress.update(104, [{"loss": 0.25, "crystals": 10.0}] * 4)
    progress.close()


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    show_four_steps(monkeypatch, seconds=29.0)
    assert caplog.messages == []
    show_four_steps(monkeypatch, seconds=40.0)
    (line,) = caplog.messages
    assert line == "step 104 of 1100, loss 0.25, 1 structures/s, 2:46:00 left"


def test_on_a_terminal_progress_is_a_bar(monkeypatch, caplog):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level(logging.INFO, logger="jaxmat")
    show_four_steps(monkeypatch, seconds=2.0)
    assert "104/1100" in terminal.getvalue()
    assert "loss 0.25, 20 structures/s" in terminal.getvalue()
    assert caplog.messages == []
