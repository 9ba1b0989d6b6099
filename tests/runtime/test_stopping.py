from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jaxmat.runtime.stopping import SIGNALS, stop_on_signals


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
