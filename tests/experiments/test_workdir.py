from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from jaxmat.data.rejects import Rejected
from jaxmat.errors import UserError
from jaxmat.experiments import carry_out, run
from jaxmat.experiments.workdir import (
    lock,
    metrics_log,
    open_workdir,
    read_metrics,
    read_result,
    refuse_other_config,
    write_json,
    write_rejected,
)

from .conftest import small_scratch

CONFIG = ConfigDict({"seed": 0, "training": {"epochs": 3, "loss": "l1"}})
HOLD = """
import sys, time
from pathlib import Path
from jaxmat.experiments.workdir import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_locked_directory_is_refused_until_its_process_is_dead(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by another run \(process {holder.pid} on "):
            with lock(tmp_path):
                pass
        holder.send_signal(signal.SIGKILL)
    with lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_runs_within_a_run_have_locks_of_their_own(tmp_path):
    with lock(tmp_path), lock(tmp_path / "seed_0" / "pretrain"):
        with pytest.raises(UserError, match="in use"), lock(tmp_path / "seed_0" / "pretrain"):
            pass
    for _ in range(2):
        with lock(tmp_path):
            pass


def test_a_second_run_in_a_directory_is_refused_and_changes_nothing(tmp_path):
    with lock(tmp_path):
        before = (tmp_path / "lock").read_text()
        with pytest.raises(UserError, match="in use by another run"):
            run(small_scratch(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
        assert (tmp_path / "lock").read_text() == before


def test_a_finished_directory_is_only_read(tmp_path):
    open_workdir(tmp_path, small_scratch())
    result = {"test_mae": 1.0, "crystals": {"test": 3}}
    write_json(tmp_path / "result.json", result)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert carry_out(small_scratch(), tmp_path) == result
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_a_stop_before_the_start_starts_nothing(tmp_path):
    assert run(small_scratch(), tmp_path / "run", stop=lambda step: True) is None
    assert not (tmp_path / "run").exists()


def test_a_lock_ends_with_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        _ = 1 / 0
    with lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock(tmp_path):
        assert "cannot be locked" in caplog.text


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to --workdir"), lock(tmp_path / "file"):
        pass


def test_another_config_is_refused_with_the_difference(tmp_path):
    refuse_other_config(tmp_path, CONFIG)
    open_workdir(tmp_path, CONFIG)
    open_workdir(tmp_path, CONFIG)
    metrics_log(tmp_path)({"step": 1})
    other = ConfigDict(CONFIG.to_dict())
    other.training.epochs = 4
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for check in (refuse_other_config, open_workdir):
        with pytest.raises(UserError, match="training.epochs: 3 there, 4 now"):
            check(tmp_path, other)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_config_of_an_earlier_version_is_the_same(tmp_path):
    write_json(tmp_path / "config.json", {"init_from": "a", "part": {"init_from": "b"}})
    write_json(tmp_path / "result.json", {})
    refuse_other_config(tmp_path, ConfigDict({"start_from": "a", "part": {"start_from": "b"}}))
    with pytest.raises(UserError, match=r"part\.start_from: 'b' there, 'c' now"):
        refuse_other_config(tmp_path, ConfigDict({"start_from": "a", "part": {"start_from": "c"}}))


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"seed": 0'])
def test_a_damaged_config_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        open_workdir(tmp_path, CONFIG)
    (tmp_path / "result.json").unlink()  # of a run that has done nothing it does not matter
    open_workdir(tmp_path, CONFIG)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG.to_dict()


def test_a_check_that_fails_does_not_stop_the_next_try(tmp_path):
    wrong = small_scratch()
    wrong.data.target = "hardness"
    with pytest.raises(UserError, match="hardness"):
        run(wrong, tmp_path / "run")
    with pytest.raises(UserError, match="cannot draw"):  # not: holds a run with another config
        right = small_scratch()
        right.data.n_train = 100_000
        run(right, tmp_path / "run")


@pytest.mark.parametrize("name", ["thesis.tex", "checkpoints", "model"])
def test_a_folder_of_something_else_is_left_alone(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"of no run \({name}\); choose a new or an empty folder"):
        run(small_scratch(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_may_lie_in_the_folder_of_the_run(tmp_path):
    config = small_scratch()
    config.data.path = str(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(UserError, match=r"table\.csv"):
        run(config, tmp_path)
    (tmp_path / "another.csv").touch()
    (tmp_path / "config.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"of no run \(another\.csv\)"):
        run(config, tmp_path)


def test_a_truncated_result_is_reported_and_not_believed(tmp_path, caplog):
    for content in ('{"test_mae": 0.', '{"test_mae": 0.5}', "[]"):
        (tmp_path / "result.json").write_text(content)
        assert read_result(tmp_path) is None
    assert "result.json cannot be read: no JSON" in caplog.text
    assert caplog.text.count("the result is made again") == 3


def test_damaged_records_are_passed_over(tmp_path, caplog):
    metrics_log(tmp_path)({"step": 2, "mae": 0.5})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": "x"}\n\xff\xfe\n[1]\n{"step": 3, "mae": "y"}\n')
    assert [record["step"] for record in read_metrics(tmp_path)] == [2]
    assert "4 lines are damaged" in caplog.text


def test_of_several_processes_the_first_alone_writes(tmp_path, monkeypatch):
    for process, names in ((1, set()), (0, {"a.json", "b.csv"})):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        write_json(tmp_path / "a.json", {})
        write_rejected(tmp_path / "b.csv", [Rejected("a", "line 2", "size: it has no sites")])
        assert set(os.listdir(tmp_path)) == names


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"mae": 1.0})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_json(file, {"mae": 2.0})
    assert json.loads(file.read_text()) == {"mae": 1.0}


def test_records_come_back_in_order_and_the_repeated_ones_once(tmp_path):
    log = metrics_log(tmp_path)
    for step, mae in [(2, 0.5), (4, float("nan")), (6, 0.3)]:
        log({"step": step, "mae": mae})
    log = metrics_log(tmp_path)
    log({"step": 6, "mae": 0.2})
    log({"step": 4, "mae": 0.4})
    maes = [(record["step"], record["mae"]) for record in read_metrics(tmp_path)]
    assert maes == [(2, 0.5), (4, 0.4), (6, 0.2)]


def test_a_record_that_a_kill_cut_short_is_taken_away(tmp_path):
    log = metrics_log(tmp_path)
    log({"step": 2, "mae": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ma')
    assert [record["step"] for record in read_metrics(tmp_path)] == [2]
    log({"step": 4, "mae": 0.4})
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4]


def test_records_wait_while_the_disk_is_full(tmp_path, monkeypatch, caplog):
    log = metrics_log(tmp_path)
    log({"step": 2})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        log({"step": 4})
        log({"step": 6})
    assert caplog.text.count("cannot be written") == 1
    assert [record["step"] for record in read_metrics(tmp_path)] == [2]
    log({"step": 8})
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4, 6, 8]


@pytest.mark.parametrize("damage", ["result", "predictions"])
def test_a_finished_run_whose_files_are_damaged_says_so(damage, tmp_path, caplog):
    """It ended in a traceback, and the result was not told."""
    config = small_scratch()
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    result = {"crystals": {}}
    if damage == "predictions":
        result |= {"property": "hardness", "unit": "GPa", "test_mae": 1.0}
        (tmp_path / "predictions.csv").write_text("id,split,target,prediction,unit\na,test,x,2,1\n")
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert run(config, tmp_path) == result
    assert "is done, but not all that it has left can be read" in caplog.text
    assert "Delete its result.json" in caplog.text
