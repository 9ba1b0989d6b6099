"""Few examples of random input; JAXMAT_FUZZ_EXAMPLES=5000 python -m pytest tests/fuzz has more."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

_EXAMPLES = os.environ.get("JAXMAT_FUZZ_EXAMPLES")
# The same examples every time, unless many are asked for.
fuzz = settings(
    max_examples=int(_EXAMPLES or 30),
    derandomize=_EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SECONDS, MEGABYTES = 60, 1500


@contextmanager
def bounded() -> Iterator[None]:
    """Fails where the body takes too long or too much memory."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    peak = _peak()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert _peak() - peak < MEGABYTES, "too much memory"


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
