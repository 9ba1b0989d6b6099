from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmat.errors import UserError
from jaxmat.training import checkpoint_files
from jaxmat.training.checkpoint_files import damage
from jaxmat.training.checkpoints import Checkpoints, load_variables
from jaxmat.training.optimizers import kernel_decay_mask, make_optimizer
from jaxmat.training.state import create_state
from jaxmat.training.step import make_train_step

DESCRIPTION = {"trunk": {"kind": "alignn", "width": 5}, "unit": "Å"}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, DESCRIPTION)


@pytest.fixture(scope="module")
def states(network, optimizer, loss, variables, make_batch):
    """States after 0 to 4 steps."""
    step = jax.jit(make_train_step(network, optimizer, loss, ema_decay=0.9))
    states = [create_state(variables, optimizer, ema=True)]
    for number in range(4):
        states.append(step(states[-1], make_batch(number))[0])
    return states


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def live_variables(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_state_comes_back_bit_for_bit(checkpoints, states):
    checkpoints.save_last(states[3])
    restored = checkpoints.restore_last(states[0])
    assert_same_bits(restored, states[3])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_a_partly_frozen_state_without_averages_comes_back(checkpoints, variables):
    trainable = jax.tree.map(lambda _: False, variables["params"])
    trainable["heads_toy"] = {"kernel": True, "bias": True}
    optimizer = make_optimizer(
        lambda _: 0.1, 0.9, weight_decay=0.1, decay_mask=kernel_decay_mask, trainable=trainable
    )
    state = create_state(variables, optimizer, ema=False)
    checkpoints.save_last(state._replace(step=jnp.int32(7)))
    assert_same_bits(checkpoints.restore_last(state), state._replace(step=jnp.int32(7)))


def test_a_network_without_batch_norm_comes_back(checkpoints, tmp_path):
    optimizer = optax.sgd(0.1)
    state = create_state({"params": {"kernel": jnp.ones(3)}}, optimizer, ema=False)
    checkpoints.save_last(state)
    assert_same_bits(checkpoints.restore_last(state), state)
    variables, _ = load_variables(tmp_path)
    assert_same_bits(variables, {"batch_stats": {}, "params": {"kernel": np.ones(3, np.float32)}})


def test_the_two_newest_states_and_the_best_variables_are_kept(checkpoints, states):
    for number, state in enumerate(states):
        checkpoints.save_last(state)
        checkpoints.save_best(live_variables(state), number, 5.0 - number)
    assert steps_in(checkpoints.folder / "last") == [3, 4]
    assert steps_in(checkpoints.folder / "best") == [4]
    assert checkpoints.best_metric() == 1.0


def test_steps_of_an_abandoned_future_are_removed(checkpoints, states):
    for number in (1, 3, 4, 2):
        checkpoints.save_last(states[number])
        checkpoints.save_best(live_variables(states[number]), number, 1.0)
    assert steps_in(checkpoints.folder / "last") == [2]
    assert steps_in(checkpoints.folder / "best") == [2]


def test_nothing_saved_is_nothing_restored(checkpoints, states):
    assert checkpoints.restore_last(states[0]) is None
    assert checkpoints.best_metric() == np.inf
    assert not checkpoints.folder.exists()


def test_empty_and_unfinished_folders_do_not_count(checkpoints, states):
    last = checkpoints.folder / "last"
    checkpoints.save_last(states[1])
    shutil.copytree(last / "1", last / "8.unfinished")
    (last / "9").mkdir()
    assert_same_bits(checkpoints.restore_last(states[0]), states[1])
    checkpoints.save_last(states[2])
    assert {path.name for path in last.iterdir()} == {"1", "2", "9"}


@pytest.mark.parametrize("broken_at", ["about.json", "files.json", "rename"])
def test_a_write_that_breaks_off_leaves_the_earlier_state(
    broken_at, checkpoints, states, monkeypatch
):
    checkpoints.save_last(states[1])

    def full_disk(path, *_):
        if broken_at in ("rename", path.name):
            raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(
            *(Path, "rename") if broken_at == "rename" else (checkpoint_files, "_write_json"),
            full_disk,
        )
        with pytest.raises(OSError, match="no space left"):
            checkpoints.save_last(states[2])
    assert_same_bits(checkpoints.restore_last(states[0]), states[1])
    checkpoints.save_last(states[2])
    assert_same_bits(checkpoints.restore_last(states[0]), states[2])
    assert steps_in(checkpoints.folder / "last") == [1, 2]


def test_writing_a_step_again_replaces_it(checkpoints, states):
    checkpoints.save_last(states[2])
    other = states[3]._replace(step=states[2].step)
    checkpoints.save_last(other)
    assert_same_bits(checkpoints.restore_last(states[0]), other)


@pytest.mark.parametrize("spoil", [halve, flip, lambda path: path.unlink()])
def test_a_spoilt_file_of_any_kind_is_seen(spoil, checkpoints, states, tmp_path):
    checkpoints.save_last(states[1])
    whole = checkpoints.folder / "last" / "1"
    assert damage(whole) is None
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(names) > 10
    for name in names:
        spoilt = tmp_path / "spoilt"
        shutil.copytree(whole, spoilt)
        spoil(spoilt / name)
        assert damage(spoilt) is not None, name
        shutil.rmtree(spoilt)


def test_a_damaged_newest_state_is_passed_over_with_a_warning(checkpoints, states, caplog):
    checkpoints.save_last(states[1])
    checkpoints.save_last(states[2])
    newest = checkpoints.folder / "last" / "2"
    halve(newest / "params" / "manifest.ocdbt")
    assert_same_bits(checkpoints.restore_last(states[0]), states[1])
    assert f"checkpoint {newest} is damaged" in caplog.text


def test_only_damaged_states_are_an_error_that_names_them(checkpoints, states):
    for number in (1, 2):
        checkpoints.save_last(states[number])
        flip(checkpoints.folder / "last" / str(number) / "about.json")
    with pytest.raises(UserError, match=r"every checkpoint is damaged") as error:
        checkpoints.restore_last(states[0])
    for number in (1, 2):
        assert f"last/{number}: missing or changed: about.json" in str(error.value)


def test_a_damaged_best_does_not_stop_a_run(checkpoints, states, tmp_path):
    checkpoints.save_last(states[2])
    checkpoints.save_best(live_variables(states[1]), 1, 0.5)
    flip(checkpoints.folder / "best" / "1" / "about.json")
    assert checkpoints.best_metric() == np.inf
    assert_same_bits(load_variables(tmp_path)[0], states[2].ema)


def test_another_architecture_is_refused_leaf_by_leaf(
    checkpoints, states, toy_network, optimizer, make_batch
):
    checkpoints.save_last(states[1])
    wide = toy_network(width=6).init(jax.random.key(0), make_batch(0))
    with pytest.raises(UserError, match="another network or optimizer") as error:
        checkpoints.restore_last(create_state(wide, optimizer, ema=True))
    message = str(error.value)
    assert "params/heads_toy/kernel: expected float32[6, 2], found float32[5, 2]" in message
    assert "... and" in message


def test_another_dtype_or_optimizer_is_refused(checkpoints, states, variables, optimizer):
    checkpoints.save_last(states[1])
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), states[0].params)
    with pytest.raises(UserError, match=r"bias: expected bfloat16\[2\], found float32\[2\]"):
        checkpoints.restore_last(states[0]._replace(params=half))
    with pytest.raises(UserError, match="expected nothing, found float32"):
        checkpoints.restore_last(create_state(variables, optimizer, ema=False))
    with pytest.raises(UserError, match=r"opt_state/.*: expected nothing, found int32\[\]"):
        checkpoints.restore_last(create_state(variables, optax.sgd(0.1), ema=True))


def test_variables_are_found_from_run_checkpoints_or_step(checkpoints, states, tmp_path, caplog):
    best = live_variables(states[1])
    checkpoints.save_best(best, 1, 0.5)
    checkpoints.save_last(states[3])
    for place in (tmp_path, checkpoints.folder, checkpoints.folder / "best" / "1"):
        variables, description = load_variables(place)
        assert_same_bits(variables, best)
        assert description == DESCRIPTION
    variables, description = load_variables(checkpoints.folder / "last" / "3")
    assert_same_bits(variables, states[3].ema)
    assert description == DESCRIPTION
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["", "never_made"])
def test_a_missing_checkpoint_says_what_was_looked_for(name, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*checkpoints/best.*files\.json"):
        load_variables(tmp_path / name)


def test_a_newer_format_is_refused(checkpoints, states):
    checkpoints.save_last(states[1])
    place = checkpoints.folder / "last" / "1"
    about = json.loads((place / "about.json").read_text())
    (place / "about.json").write_text(json.dumps(about | {"format": 99}))
    (place / "files.json").write_text("{}")
    with pytest.raises(UserError, match="newer jaxmat"):
        checkpoints.restore_last(states[0])


def test_a_read_only_copy_can_be_loaded(checkpoints, states, tmp_path):
    checkpoints.save_best(live_variables(states[1]), 1, 0.5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_variables(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
