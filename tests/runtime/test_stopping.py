from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxmat.runtime.files import whole_file
from jaxmat.runtime.stopping import (
    SIGNALS,
    Stopped,
    giving_up_on_signals,
    passing_signals_on,
    stop_on_signals,
)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_answer_at_the_next_step(number, capfd):
    with stop_on_signals() as stop:
        assert not stop(1) and stop.step is None
        os.kill(os.getpid(), number)
        assert stop(2) and stop.step == 2
        assert stop.signal is number
        assert {signal.getsignal(each) for each in SIGNALS} == {signal.SIG_DFL}
    assert number.name in capfd.readouterr().err


def test_handlers_are_there_only_within_the_context():
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_on_signals() as stop:
        assert all(signal.getsignal(each) == stop.receive for each in SIGNALS)
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(second):
    program = f"""
import os, signal
from jaxmat.runtime.stopping import stop_on_signals
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop(1)
    os.kill(os.getpid(), {int(second)})
    print("still here", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -second, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_an_interrupt_from_python_waits_for_the_work_and_is_passed_on():
    done = []
    # A shell lets what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), passing_signals_on() as stop:
            for item in stop.between(range(5)):
                done.append(item)
                if item == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                    done.append("the item is finished")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [0, 1, 2, "the item is finished"]


def test_a_signal_is_passed_on_to_the_handler_that_was_there_before():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with passing_signals_on() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop(3)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_hear_nothing_and_work():
    found = []

    def work():
        with passing_signals_on() as stop:
            found.extend(stop.between([1, 2]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1, 2]


def test_what_can_be_given_up_is_given_up_at_once(tmp_path):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Stopped, match="SIGTERM"), giving_up_on_signals():
        with whole_file(tmp_path / "table.json.gz") as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(each) for each in SIGNALS] == before
