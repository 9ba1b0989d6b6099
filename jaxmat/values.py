"""What a value from outside may be: a check, and its words for messages and documents."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.ASCII | re.IGNORECASE
)


class Allowed(NamedTuple):
    """What a value may be.

    Attributes:
        text: in words, such as "a whole number from 1 to 100".
        holds: whether a value is that.
        choices: all that are allowed, where they can be listed.
    """

    text: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def whole(least: int, most: int | None = None) -> Allowed:
    """Allows whole numbers from `least` to `most`, or without an end; True and False are none."""

    def holds(value: Any) -> bool:
        return _is(value, Integral) and least <= value and (most is None or value <= most)

    return Allowed(f"a whole number {_range(least, most)}", holds)


def real(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Allowed:
    """Allows finite numbers in a range.

    Args:
        least: the least, itself allowed.
        most: the greatest, itself allowed.
        above: in place of `least`; itself not allowed.
        below: in place of `most`; itself not allowed.
    """
    ends = [
        *([_range(least, most)] if least is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"up to {most:g}"] if least is None and most is not None else []),
        *([f"below {below:g}"] if below is not None else []),
    ]

    def holds(value: Any) -> bool:
        return (
            _is(value, Real)
            and math.isfinite(value)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return Allowed(" ".join(["a number", " and ".join(ends)]).strip(), holds)


def one_of(*choices: str) -> Allowed:
    """Allows some words."""
    return Allowed(
        " or ".join(filter(None, [", ".join(map(repr, choices[:-1])), repr(choices[-1])])),
        lambda value: isinstance(value, str) and value in choices,
        choices,
    )


def flag() -> Allowed:
    """Allows True and False."""
    return Allowed("True or False", lambda value: isinstance(value, bool))


def text() -> Allowed:
    """Allows text, the empty one included."""
    return Allowed("text", lambda value: isinstance(value, str))


def several(each: Allowed, least: int = 0) -> Allowed:
    """Allows a list or tuple of what is allowed.

    Args:
        each: of its items.
        least: how many there have to be.
    """

    def holds(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple)) and len(value) >= least and all(map(each.holds, value))
        )

    return Allowed(f"a list, each of it {each.text}", holds, each.choices)


def optional(allowed: Allowed) -> Allowed:
    """Allows None as well."""
    return allowed._replace(
        text=f"{allowed.text}, or None",
        holds=lambda value: value is None or allowed.holds(value),
    )


def written_number(word: str) -> float | None:
    """Returns the number that a text is in the notation of every program, None where it is none.

    Python would also take 1_000 and the digits of other scripts.

    Args:
        word: such as "-1.5e3" or "inf"; blanks around it do not matter.
    """
    word = word.strip()
    return float(word) if _NUMBER.fullmatch(word) else None


def problem(name: str, value: Any, allowed: Allowed) -> str | None:
    """Returns what is wrong with a value, None where it is allowed.

    Args:
        name: of the value, as the user knows it.
        value: what it is.
        allowed: what it may be.
    """
    if allowed.holds(value):
        return None
    near = [hint for word in _words(value) for hint in nearest(word, allowed.choices)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{name} is {shortened(value)}; it has to be {allowed.text}{hint}"


def problems(place: str, values: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> list[str]:
    """Returns what is wrong with the fields of something: values, unknown and missing ones.

    Args:
        place: what precedes the names of fields in messages, such as "graph.".
        values: field → value.
        allowed: field → what it may be.
    """
    found = [
        wrong
        for name in allowed
        if name in values and (wrong := problem(place + name, values[name], allowed[name]))
    ]
    found += [unknown(place, name, allowed) for name in values if name not in allowed]
    return found + [f"{place}{name} is missing" for name in allowed if name not in values]


def unknown(place: str, name: str, known: Mapping[str, Any]) -> str:
    """Returns that there is no field of a name, and which ones are near."""
    near = nearest(name, tuple(known))
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"{place}{name} is unknown; {hint}"


def nearest(word: str, choices: tuple[str, ...]) -> list[str]:
    """Returns the choices that a word may have been meant to be, at most two."""
    return difflib.get_close_matches(word, choices, n=2, cutoff=0.5)


def shortened(value: Any, most: int = 80) -> str:
    """Returns a value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _range(least: float, most: float | None) -> str:
    first, last = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (least, most or 0))
    return f"from {first} on" if most is None else f"from {first} to {last}"


def _words(value: Any) -> list[str]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, str)]
