from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxmat.runtime.files import whole_file
from jaxmat.runtime.stopping import (
    SIGNALS,
    Stopped,
    deaf_processes,
    give_up_if_told,
    giving_up_at_once,
    giving_up_on_signals,
    passing_signals_on,
    saving_first,
    stop_on_signals,
    waited_for,
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


def test_waiting_ends_when_a_signal_comes(capfd):
    def slow():
        yield 1
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(30)
        yield 2

    found = []
    with pytest.raises(Stopped, match="SIGTERM"), stop_on_signals():
        for item in waited_for(slow()):
            found.append(item)
    with pytest.raises(Stopped), stop_on_signals():
        for item in waited_for("ab"):
            os.kill(os.getpid(), signal.SIGTERM)
            found.append(item)  # what is done with an item is not interrupted
    assert found == [1, "a"]
    assert list(waited_for("ab")) == ["a", "b"]  # nobody receives signals


def test_what_saves_first_is_not_given_up():
    with stop_on_signals() as stop:
        with saving_first():
            os.kill(os.getpid(), signal.SIGTERM)
            give_up_if_told()
            with giving_up_at_once():
                assert stop(1)
        with pytest.raises(Stopped):
            give_up_if_told()


def test_several_processes_end_together():
    """Each asks, so none gives up what the others wait for."""
    with stop_on_signals(lambda told: told) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        give_up_if_told()
        assert stop(1)


def test_what_was_given_up_is_never_taken_for_a_result():
    """A handler of the user's that only notes the signal must not make a result of None."""
    before = signal.signal(signal.SIGUSR1, lambda number, _: None)
    try:
        with pytest.raises(Stopped), passing_signals_on() as stop:
            for _ in stop.between([1, 2]):
                os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_helpers_hear_no_signals_and_are_ended_by_who_started_them(number):
    program = "print('up', flush=True); input(); print('still here')"
    with deaf_processes():
        helper = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with helper:
        assert helper.stdout.readline() == "up\n"
        helper.send_signal(number)
        assert "still here" in helper.communicate("\n", timeout=60)[0]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(SIGNALS)
