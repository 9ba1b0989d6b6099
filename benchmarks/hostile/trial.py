"""What a trial is: an input, what is done with it, and what must not come of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# What stands where it should not, in files of every kind.
_TOKENS = [
    *(b"nan", b"inf", b"1e309", b"-1", b"0", b"?", b".", b"'", b'"', b"\\", b"{", b"[", b"]", b"}"),
    *(b"\x00", b"\xff\xfe", b"\r", b"\n\n", b"\t", b",", b";", b"#", b"9" * 400, b"_", b"data_x\n"),
    *(b"loop_\n", b"null", b"true", "١".encode(), "\u202e".encode(), b"1_0", b"Qq", b"1e-320"),
]


class Wrong(Exception):
    """An input was taken and gave something that is not so."""


class Trial(NamedTuple):
    """One input.

    Attributes:
        name: of the input, for the report.
        attempt: makes it in an empty folder and uses it; raises UserError where it is refused,
            Wrong where a wrong result came of it, anything else where there is a traceback.
    """

    name: str
    attempt: Callable[[Path], None]


def mutations(content: bytes, number: int) -> list[bytes]:
    """Returns valid bytes with accidents in them, the same each time.

    Args:
        content: what is mutated.
        number: how many to make.
    """
    found: list[bytes] = []

    @settings(
        max_examples=3 * number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_mutated(content))
    def collect(mutated: bytes) -> None:
        if mutated != content and mutated not in found:
            found.append(mutated)

    collect()
    # The last ones are the most changed: hypothesis begins with the simplest.
    return found[-number:]


@st.composite
def _mutated(draw: st.DrawFn, content: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        change = draw(st.sampled_from(["cut", "double", "token", "flip", "truncate"]))
        if change == "cut":
            content = content[:start] + content[end:]
        elif change == "double":
            content = content[:end] + content[start:end] * 3 + content[end:]
        elif change == "token":
            content = content[:start] + draw(st.sampled_from(_TOKENS)) + content[end:]
        elif change == "flip" and content:
            flipped = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([flipped]) + content[start + 1 :]
        else:
            content = content[:start]
    return content


def mutated_files(
    name: str, content: bytes, number: int, attempt: Callable[[Path], None]
) -> Iterator[Trial]:
    """Yields trials of mutations of a file.

    Args:
        name: of the file.
        content: of the file, valid.
        number: of trials.
        attempt: takes the path of the mutated file.
    """
    for i, mutated in enumerate(mutations(content, number)):

        def mutate(folder: Path, mutated: bytes = mutated) -> None:
            (folder / name).write_bytes(mutated)
            attempt(folder / name)

        yield Trial(f"{name}, mutation {i}", mutate)


def strange_places(name: str, attempt: Callable[[Path], None]) -> Sequence[Trial]:
    """Returns trials of what is not a regular file, by a name.

    Args:
        name: that it has.
        attempt: takes its path.
    """

    def pipe(folder: Path) -> None:
        os.mkfifo(folder / name)
        attempt(folder / name)

    def device(folder: Path) -> None:
        (folder / name).symlink_to("/dev/zero")
        attempt(folder / name)

    def directory(folder: Path) -> None:
        (folder / name).mkdir()
        attempt(folder / name)

    def loop(folder: Path) -> None:
        (folder / name).symlink_to(folder / name)
        attempt(folder / name)

    kinds = {"a pipe": pipe, "an endless device": device, "a folder": directory, "a loop": loop}
    missing = Trial(f"{name}: not there", lambda folder: attempt(folder / name))
    return [missing, *(Trial(f"{name}: {kind}", make) for kind, make in kinds.items())]
