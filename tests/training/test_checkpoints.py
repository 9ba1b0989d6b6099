from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.damage import DAMAGES, contents, flip, halve
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


def test_a_state_comes_back_bit_for_bit(checkpoints, states):
    checkpoints.save_last(states[3])
    restored = checkpoints.restore_last(states[0])
    assert_same_bits(restored, states[3])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("name", ["@eaDir", "ema"])
def test_a_folder_that_was_not_written_with_a_state_is_passed_over(name, checkpoints, states):
    """File servers make some; the state was taken for that of another network."""
    state = states[2]._replace(ema=None)
    checkpoints.save_last(state)
    (checkpoints.folder / "last" / "2" / name).mkdir()
    (checkpoints.folder / "last" / "2" / name / "thumbnail").write_bytes(b"x")
    assert_same_bits(checkpoints.restore_last(states[1]._replace(ema=None)), state)


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


def save_best(checkpoints: Checkpoints, *best: Any) -> None:
    checkpoints.keep_best(*best)
    checkpoints.write_waiting()


def test_the_best_variables_wait_for_the_next_saving(checkpoints, states):
    for number in (1, 2):
        checkpoints.keep_best(live_variables(states[number]), number, 1.0 / number)
    assert not checkpoints.folder.exists()
    checkpoints.save_last(states[3])
    assert steps_in(checkpoints.folder / "best") == [2]


def test_the_two_newest_states_and_the_best_variables_are_kept(checkpoints, states):
    for number, state in enumerate(states):
        checkpoints.save_last(state)
        save_best(checkpoints, live_variables(state), number, 5.0 - number)
    assert steps_in(checkpoints.folder / "last") == [3, 4]
    assert steps_in(checkpoints.folder / "best") == [4]
    assert checkpoints.best_metric() == 1.0


def test_steps_of_an_abandoned_future_are_removed(checkpoints, states):
    for number in (1, 3, 4, 2):
        checkpoints.save_last(states[number])
        save_best(checkpoints, live_variables(states[number]), number, 1.0)
    assert steps_in(checkpoints.folder / "last") == [2]
    assert steps_in(checkpoints.folder / "best") == [2]


def test_nothing_saved_is_nothing_restored(checkpoints, states):
    assert checkpoints.restore_last(states[0]) is None
    assert checkpoints.best_metric() == np.inf
    assert not checkpoints.folder.exists()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_state_is_passed_over_and_never_removed(kind, checkpoints, states, caplog):
    last = checkpoints.folder / "last"
    for number in (1, 2):
        checkpoints.save_last(states[number])
    DAMAGES[kind](last / "2")
    before = contents(last / "2")
    assert_same_bits(checkpoints.restore_last(states[0]), states[1])
    assert f"checkpoint {last / '2'} is damaged and passed over" in caplog.text
    for number in (2, 3):
        checkpoints.save_last(states[number])
        assert_same_bits(checkpoints.restore_last(states[0]), states[number])
    assert {path.name for path in last.iterdir()} == {"2", "2-2", "3"}
    assert contents(last / "2") == before


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_best_is_passed_over_and_never_removed(kind, checkpoints, states, tmp_path):
    save_best(checkpoints, live_variables(states[2]), 2, 0.5)
    place = checkpoints.folder / "best" / "2"
    DAMAGES[kind](place)
    before = contents(place)
    assert checkpoints.best_metric() == np.inf
    save_best(checkpoints, live_variables(states[1]), 1, 0.7)
    assert checkpoints.best_metric() == 0.7
    save_best(checkpoints, live_variables(states[2]), 2, 0.6)
    assert checkpoints.best_metric() == 0.6
    assert_same_bits(load_variables(tmp_path)[0], live_variables(states[2]))
    assert {path.name for path in place.parent.iterdir()} == {"2", "2-2"}
    assert contents(place) == before


def test_what_a_kill_left_unfinished_is_reported_and_goes_with_the_next_saving(
    checkpoints, states, caplog
):
    last = checkpoints.folder / "last"
    checkpoints.save_last(states[1])
    shutil.copytree(last / "1", last / "8.unfinished")
    shutil.copytree(last / "1", last / "9.unfinished.orbax-checkpoint-tmp")
    assert_same_bits(checkpoints.restore_last(states[0]), states[1])
    assert "8.unfinished was left unfinished" in caplog.text
    assert "9.unfinished.orbax-checkpoint-tmp was left unfinished" in caplog.text
    assert len(list(last.iterdir())) == 3
    checkpoints.save_last(states[2])
    assert steps_in(last) == [1, 2]


def test_a_kill_while_a_state_is_removed_leaves_no_damaged_one(
    checkpoints, states, caplog, monkeypatch
):
    for number in (1, 2):
        checkpoints.save_last(states[number])

    def killed(path, **_):
        if next(path.rglob("about.json"), None):
            (path / "about.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save_last(states[3])
    assert_same_bits(checkpoints.restore_last(states[0]), states[3])
    checkpoints.save_last(states[4])
    assert steps_in(checkpoints.folder / "last") == [3, 4]
    assert "damaged" not in caplog.text


@contextmanager
def full_disk(monkeypatch, at="trees", number=errno.ENOSPC):
    """Lets every write of a checkpoint end in an error, at a given point of it."""

    def fail(path, *_):
        if at in ("trees", "rename", path.name):
            raise OSError(number, os.strerror(number))

    owner, name = {"trees": (checkpoint_files, "_write_trees"), "rename": (Path, "rename")}.get(
        at, (checkpoint_files, "write_json")
    )
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield


@pytest.mark.parametrize("at", ["trees", "about.json", "files.json", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_pauses_saving_and_loses_nothing(
    at, number, checkpoints, states, monkeypatch, caplog
):
    last = checkpoints.folder / "last"
    checkpoints.save_last(states[1])
    before = contents(checkpoints.folder)
    with full_disk(monkeypatch, at, number):
        checkpoints.save_last(states[2])
        checkpoints.save_last(states[3])
        assert contents(checkpoints.folder) == before
        assert steps_in(last) == [1]
        assert_same_bits(checkpoints.restore_last(states[0]), states[1])
        with pytest.raises(UserError, match=f"last/3 .*{os.strerror(number)}.* is safe. Make room"):
            checkpoints.finish()
    assert caplog.text.count("cannot be written") == 1
    checkpoints.finish()
    assert_same_bits(checkpoints.restore_last(states[0]), states[3])
    checkpoints.save_last(states[4])
    assert steps_in(last) == [3, 4]


def test_the_best_of_a_full_disk_is_written_before_any_later_state(
    checkpoints, states, tmp_path, monkeypatch
):
    save_best(checkpoints, live_variables(states[0]), 0, 0.9)
    best = jax.tree.map(jnp.array, live_variables(states[1]))
    with full_disk(monkeypatch):
        save_best(checkpoints, best, 1, 0.5)
        for leaf in jax.tree.leaves(best):
            leaf.delete()  # as a step does that gets them donated
        checkpoints.save_last(states[2])
        assert not checkpoints.write_waiting()
    assert checkpoints.best_metric() == 0.9
    assert not (checkpoints.folder / "last" / "2").exists()
    checkpoints.save_last(states[3])
    assert checkpoints.write_waiting()
    assert checkpoints.best_metric() == 0.5
    assert_same_bits(load_variables(tmp_path)[0], live_variables(states[1]))
    assert_same_bits(checkpoints.restore_last(states[0]), states[3])
    checkpoints.finish()


def test_what_tensorstore_says_of_a_full_disk_is_understood(checkpoints, states, monkeypatch):
    def fail(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Failed writing x: No space [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files.ocp.Checkpointer, "save", fail)
        checkpoints.save_last(states[1])
        with pytest.raises(UserError, match="No space left on device"):
            checkpoints.finish()


def test_a_mistake_in_a_program_is_no_full_disk(checkpoints, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no such thing")

    monkeypatch.setattr(checkpoint_files.ocp.Checkpointer, "save", fail)
    with pytest.raises(ValueError, match="no such thing"):
        save_best(checkpoints, {"params": {"a": jnp.ones(2)}}, 1, 0.5)


def test_little_space_is_warned_of(checkpoints, states, monkeypatch, caplog):
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(states[0]))
    checkpoints.warn_of_little_space(states[0])
    assert caplog.text == ""
    usage = shutil.disk_usage(checkpoints.folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * size - 1))
    checkpoints.warn_of_little_space(states[0])
    assert "MB are free" in caplog.text


def test_a_step_that_is_there_is_not_written_over(checkpoints, states, monkeypatch):
    checkpoints.save_last(states[2])
    before = contents(checkpoints.folder)
    other = states[3]._replace(step=states[2].step)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "remove", lambda place: None)
        checkpoints.save_last(other)
    assert before.items() <= contents(checkpoints.folder).items()
    assert_same_bits(checkpoints.restore_last(states[0]), other)
    checkpoints.save_last(states[4])
    assert_same_bits(checkpoints.restore_last(states[0]), states[4])


@pytest.mark.parametrize("spoil", [halve, flip, lambda path: path.unlink()])
def test_a_spoilt_file_of_any_kind_is_seen(spoil, checkpoints, states):
    checkpoints.save_last(states[1])
    whole = checkpoints.folder / "last" / "1"
    assert damage(whole) is None
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(names) > 10
    for name in names:
        content = (whole / name).read_bytes()
        spoil(whole / name)
        assert damage(whole) is not None, name
        (whole / name).write_bytes(content)
    assert damage(whole) is None


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
    save_best(checkpoints, live_variables(states[1]), 1, 0.5)
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
    save_best(checkpoints, best, 1, 0.5)
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
    digests = json.loads((place / "files.json").read_text())
    digests["about.json"] = hashlib.sha256((place / "about.json").read_bytes()).hexdigest()
    (place / "files.json").write_text(json.dumps(digests))
    with pytest.raises(UserError, match="newer jaxmat"):
        checkpoints.restore_last(states[0])


def test_a_read_only_copy_can_be_loaded(checkpoints, states, tmp_path):
    save_best(checkpoints, live_variables(states[1]), 1, 0.5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_variables(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_states_of_other_members_are_refused(tmp_path, states):
    """Whose names, shapes and dtypes are the same."""
    one, other = (Checkpoints(tmp_path, DESCRIPTION, names) for names in (["1", "3"], ["1", "2"]))
    one.save_last(states[2], {"broken": {"3": "it broke down"}})
    assert one.said_with_last()["broken"] == {"3": "it broke down"}
    assert_same_bits(one.restore_last(states[0]), states[2])
    for checkpoints in (other, Checkpoints(tmp_path, DESCRIPTION)):
        with pytest.raises(UserError, match=r"of other trainings \(1, 3; now .*Move .* away"):
            checkpoints.restore_last(states[0])


def test_states_of_a_population_that_does_not_name_its_members_are_read(
    tmp_path, checkpoints, states
):
    """As earlier versions left them."""
    checkpoints.save_last(states[2])
    several = Checkpoints(tmp_path, DESCRIPTION, ["1", "3"])
    assert_same_bits(several.restore_last(states[0]), states[2])
    assert "broken" not in several.said_with_last()


def test_the_end_of_a_member_is_kept_beside_its_best(tmp_path, checkpoints, states):
    assert checkpoints.load("end") is None
    save_best(checkpoints, live_variables(states[1]), 1, 0.5)
    checkpoints.keep_end(live_variables(states[3]), 3)
    assert checkpoints.write_waiting()
    assert_same_bits(checkpoints.load("end"), live_variables(states[3]))
    assert_same_bits(load_variables(tmp_path)[0], live_variables(states[1]))
