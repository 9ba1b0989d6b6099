"""The one exception for problems that the user can mend."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A wrong input: the message names it, says what is wrong and what to do.

    The entry points print the message alone, without a traceback.
    """


def counted(number: int, noun: str) -> str:
    """Returns so many of something, such as "1 crystal" or "2 crystals"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def listed(problems: Sequence[str], most: int = 10) -> str:
    """Returns one indented line per problem, the first `most` in full and the rest counted."""
    lines = [f"  {problem}" for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"  ... and {len(problems) - most} more")
    return "\n".join(lines)
