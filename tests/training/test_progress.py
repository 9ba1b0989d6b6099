"""What a training says of its progress: estimates, lines of a log, a bar."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

from jaxmat.runtime.durations import in_words
from jaxmat.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on."""
    now = [0.0]
    monkeypatch.setattr("jaxmat.training.progress.time.monotonic", lambda: now[0])

    def go_on(seconds):
        now[0] += seconds

    return go_on


def new_progress(total=100, compiled=lambda: 0.0):
    return Progress(0, total, record_every=50, save_every=50, record_work=10.0, compiled=compiled)


def take(progress, clock, steps, seconds, work=1.0):
    """Takes steps that are compiled, and tells of them."""
    for _ in range(steps):
        clock(seconds)
        progress.count(work)
    progress.update(progress._step + steps, [{"loss": 0.25, "crystals": 10.0}] * steps)


def test_compiling_evaluating_and_saving_are_no_steps(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    compiled = [0.0]
    progress = new_progress(compiled=lambda: compiled[0])
    with progress.compiling(1, 2):
        clock(600.0)
    take(progress, clock, steps=4, seconds=0.5)
    assert caplog.messages[0] == "compiling shape 1 of 2"
    # 96 steps of 0.5 s and two evaluations of ten steps each.
    assert caplog.messages[1].startswith("about 58 s: 96 steps of 0.5 s")
    assert progress.seconds_left() == pytest.approx(96 * 0.5 + 2 * 10 * 0.5)
    with progress.compiling(2, 2):
        clock(300.0)
    take(progress, clock, steps=46, seconds=0.5)
    with progress.recording():
        clock(100.0)  # most of it for compiling
        compiled[0] += 97.0
    with progress.saving():
        clock(2.0)
    assert progress.seconds_left() == pytest.approx(50 * 0.5 + 3.0 + 2.0)
    with progress.recording():
        clock(2.0)
    with progress.saving():
        clock(1.0)
    assert progress.seconds_left() == pytest.approx(50 * 0.5 + 2.0 + 1.0)
    progress.close()


def test_the_first_estimate_is_held_against_the_truth(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    compiled = [0.0]
    progress = new_progress(compiled=lambda: compiled[0])
    take(progress, clock, steps=4, seconds=0.5)
    with progress.compiling(2, 2):
        clock(300.0)
        compiled[0] += 299.0
    take(progress, clock, steps=96, seconds=0.25)
    progress.close()
    assert caplog.messages[-1] == "training: estimated at 58 s, took 25 s (compiling not counted)"


def test_an_evaluation_that_comes_soon_is_measured_before_the_estimate(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress()
    take(progress, clock, steps=4, seconds=0.1)
    take(progress, clock, steps=46, seconds=0.1)
    with progress.recording():
        clock(20.0)
    assert not caplog.messages and not progress.is_due()
    take(progress, clock, steps=4, seconds=0.1)
    assert [message.split(":")[0] for message in caplog.messages] == ["about 25 s"]
    progress.close()


def test_the_first_evaluation_which_sets_things_up_is_no_measure_of_the_others(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress(200)
    take(progress, clock, steps=50, seconds=0.1)
    with progress.recording():
        clock(20.0)
    take(progress, clock, steps=50, seconds=0.1)
    assert not caplog.messages
    with progress.recording():
        clock(2.0)
    take(progress, clock, steps=4, seconds=0.1)
    # 96 steps of 0.1 s and two evaluations of 2 s.
    assert [message.split(":")[0] for message in caplog.messages] == ["about 14 s"]
    progress.close()


def test_a_training_that_was_stopped_says_nothing_of_its_estimate(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress()
    take(progress, clock, steps=4, seconds=0.5)
    take(progress, clock, steps=40, seconds=0.5)
    progress.close()
    assert [message.split(":")[0] for message in caplog.messages] == ["about 58 s"]


def test_steps_of_unlike_work_are_weighed(clock):
    progress = new_progress()
    take(progress, clock, steps=8, seconds=0.1, work=0.5)
    assert progress.seconds_left() == pytest.approx(92 * 0.2 + 2 * 10 * 0.2)
    progress.close()


def test_the_rate_is_that_of_steps_which_were_timed(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress(1000)
    take(progress, clock, steps=4, seconds=0.25)
    with progress.compiling(2, 2):
        clock(60.0)
    progress.update(5, [{"loss": 0.25, "crystals": 10.0}])
    assert "loss 0.25, 40 structures/s" in caplog.messages[-1]
    progress.close()


def test_without_a_terminal_progress_is_a_line_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress(1100)
    take(progress, clock, steps=4, seconds=0.25)
    take(progress, clock, steps=4, seconds=0.25)
    assert len(caplog.messages) == 1
    take(progress, clock, steps=120, seconds=0.25)
    assert caplog.messages[1].startswith("step 128 of 1100, loss 0.25, 40 structures/s, ")
    assert caplog.messages[1].endswith(" left")
    progress.close()


class Terminal(io.StringIO):
    """As tqdm sees one."""

    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar(monkeypatch, clock, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level(logging.INFO, logger="jaxmat")
    progress = new_progress(1100)
    with progress.compiling(1, 3):
        pass
    take(progress, clock, steps=4, seconds=0.5)
    progress.close()
    shown = terminal.getvalue()
    assert "compiling shape 1 of 3" in shown and "4/1100 steps" in shown
    assert "11 min left, loss 0.25, 20 structures/s" in shown
    assert [message.split(":")[0] for message in caplog.messages] == ["about 11 min"]


def test_a_terminal_without_a_width_has_a_bar():
    """As over some connections, and in some notebooks and containers."""
    script = """
import time
from jaxmat.training.progress import Progress
progress = Progress(0, 8, record_every=8, save_every=8, record_work=1.0, compiled=float)
for _ in range(8):
    progress.count(1.0)
time.sleep(1.1)
progress.update(8, [{"loss": 1.0, "crystals": 1.0}] * 8)
progress.close()
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", script], stderr=theirs, env=environment, check=True)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "8/8 steps" in shown and "█" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (119, "119 s"), (130, "2 min"), (145, "2.5 min"), (700, "12 min")]
    + [(5340, "89 min"), (5700, "1 h 35 min"), (7200, "2 h"), (200_000, "2 d 7 h")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
