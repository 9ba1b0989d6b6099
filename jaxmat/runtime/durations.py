"""Times as people say them."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Returns a duration with as much of it as an estimate can know, such as "12 min"."""
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    halves = round(seconds / 30)  # the last minutes to half a minute
    if halves < 20:
        return f"{halves / 2:g} min"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def kept(estimated: float, took: float) -> str:
    """Returns an estimate beside what came of it, both in seconds."""
    return f"estimated at {estimated:.0f} s, took {took:.0f} s (compiling not counted)"
