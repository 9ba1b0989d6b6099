"""What is left of a list of trainings: from those that were done, compiling left out."""

from __future__ import annotations

import pytest

from jaxmat.experiments.total import Total, Work

Clock = list[float]  # seconds, and those of them that went into compiling


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = [0.0, 0.0]
    monkeypatch.setattr("jaxmat.experiments.total.time.monotonic", lambda: now[0])
    monkeypatch.setattr("jaxmat.experiments.total.CompileClock", lambda: FakeCompileClock(now))
    return now


class FakeCompileClock:
    def __init__(self, now: Clock) -> None:
        self.now, self.began = now, now[1]

    def __call__(self) -> float:
        return self.now[1] - self.began

    def close(self) -> None:
        pass


def train(total: Total, clock: Clock, *names: str, seconds: float, compiling: float = 0.0) -> None:
    with total.training(names) as results:
        clock[0] += seconds
        clock[1] += compiling
        results += [{}] * len(names)


def test_the_rest_takes_as_long_as_its_work(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "jaxmat")
    amounts = {"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0, "e": 4.0}
    total = Total({name: Work(amount) for name, amount in amounts.items()})
    train(total, clock, "a", seconds=90.0, compiling=30.0)
    assert total.seconds_left() == pytest.approx(12 * 60.0)
    train(total, clock, "b", "c", seconds=360.0)
    total.leave_out(["d"])  # another process has done it
    with pytest.raises(ZeroDivisionError), total.training(["e"]):
        raise ZeroDivisionError
    assert total.seconds_left() == 0.0
    assert caplog.messages == [
        "training 1 of 5: a",
        "trainings 2 to 3 of 5, about 12 min left: b, c",
        "training 5 of 5, about 4 min left: e",
    ]


def test_the_first_estimate_is_held_against_the_truth(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    total = Total({name: Work(1.0) for name in "abc"})
    train(total, clock, "a", seconds=50.0)
    train(total, clock, "b", seconds=100.0, compiling=40.0)
    train(total, clock, "c", seconds=70.0)
    assert caplog.messages[-1] == (
        "3 trainings: estimated at 100 s, took 130 s (compiling not counted)"
    )


def test_an_estimate_from_other_kinds_of_trainings_is_said_to_be_a_guess(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    kinds = {"fe": "large", "dc 1": "small", "dc 2": "small", "dc 3": "small"}
    total = Total({name: Work(1.0, kind) for name, kind in kinds.items()})
    train(total, clock, "fe", seconds=300.0)
    train(total, clock, "dc 1", seconds=20.0)
    train(total, clock, "dc 2", seconds=20.0)
    assert caplog.messages[1:] == [
        "training 2 of 4, perhaps 15 min left: dc 1",
        "training 3 of 4, about 40 s left: dc 2",
    ]


def test_what_was_measured_before_the_start_counts(clock: Clock) -> None:
    total = Total({"a": Work(2.0, "dc")})
    total.measure(Work(1.0, "dc"), 30.0)
    assert total.seconds_left() == pytest.approx(60.0)


def test_trainings_that_may_not_be_needed_count_in_part(clock: Clock) -> None:
    total = Total({name: Work(1.0) for name in "abc"}, add=lambda s: min(sum(s.values()), 12.0))
    total.measure(Work(1.0), 10.0)
    assert total.seconds_left() == 12.0
    total.expect("abc", 0.25)
    assert total.seconds_left() == pytest.approx(7.5)


def test_what_is_done_is_read_and_not_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jaxmat")
    total = Total({"b": Work(1.0)})
    assert total.run("a", lambda: {"mae": 1.0}) == {"mae": 1.0}
    assert total.run("b", lambda: None) is None
    assert caplog.messages == ["training 1 of 1: b"]
