"""How long JAX makes programs: it comes once, and so belongs in no estimate of what is left."""

from __future__ import annotations

from typing import Any

from jax import monitoring

_EVENTS = "/jax/core/compile/"  # tracing, lowering and compiling, or reading from the cache


class CompileClock:
    """Adds up the seconds in which programs are made, from when it is made until it is closed."""

    def __init__(self) -> None:
        """Starts listening to JAX."""
        self._spans: list[tuple[float, float]] = []  # none of them inside another
        monitoring.register_event_time_span_listener(self._take)

    def __call__(self) -> float:
        """Returns the seconds so far."""
        return sum(stop - start for start, stop in self._spans)

    def close(self) -> None:
        """Stops listening."""
        monitoring.unregister_event_time_span_listener(self._take)

    def _take(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if not event.startswith(_EVENTS):
            return
        while self._spans and self._spans[-1][0] >= start_time:  # a function traced inside another
            self._spans.pop()
        self._spans.append((start_time, end_time))
