"""What is left of a list of trainings: from those that were done, compiling left out."""

from __future__ import annotations

import pytest

from jaxmat.experiments.total import Total


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("jaxmat.experiments.total.time.monotonic", lambda: now[0])
    return now


def test_the_rest_takes_as_long_as_its_work(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    total = Total({"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0, "e": 4.0})
    with total.training(["a"]) as results:
        clock[0] += 90.0
        results.append({"compiling_seconds": 30.0})
    assert total.seconds_left() == pytest.approx(12 * 60.0)
    with total.training(["b", "c"]) as results:
        clock[0] += 360.0
        results += [{}, {}]
    total.leave_out(["d"])  # another process has done it
    with pytest.raises(ZeroDivisionError), total.training(["e"]):
        raise ZeroDivisionError
    assert total.seconds_left() == 0.0
    assert caplog.messages == [
        "training 1 of 5: a",
        "trainings 2 to 3 of 5, about 12 min left: b, c",
        "training 5 of 5, about 4 min left: e",
    ]
