"""The settings of the C library's allocator under which JAX trains fastest."""

from __future__ import annotations

import os
import sys

NAME = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
# Without them the C library returns XLA's buffers to the system after every step, and each step
# faults them in again, zeroed: up to a fifth of its time. Huge pages make the faults that remain
# few. One arena, because the others cannot hold buffers above 64 MB; no mapping of single buffers,
# and nothing trimmed below 4 GiB, because both give back what the next step wants.
VALUE = ":".join(
    [
        _HUGE_PAGES,
        "glibc.malloc.arena_max=1",
        "glibc.malloc.mmap_max=0",
        f"glibc.malloc.trim_threshold={4 * 2**30}",
    ]
)


def restart_with_allocator() -> None:
    """Starts the program anew with the settings, unless it has some; best before long imports.

    They are read when a process starts.
    """
    if sys.platform == "linux" and NAME not in os.environ:
        os.environ[NAME] = VALUE
        # Not sys.argv: a module started with -m would become a script with other imports.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def of_children() -> dict[str, str]:
    """Returns the settings, as environment, of a process started by this one that trains nothing.

    Such a process gives back what it has freed: the memory of readers is limited.
    """
    return {NAME: _HUGE_PAGES} if os.environ.get(NAME) == VALUE else {}
