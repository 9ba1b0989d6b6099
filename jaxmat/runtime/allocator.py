"""The settings of the C library's allocator under which JAX trains fastest."""

from __future__ import annotations

import os
import sys

# Without them the C library returns XLA's buffers to the system after every step, and each step
# faults them in again, zeroed: up to a fifth of its time. Huge pages make the faults that remain
# few. One arena, because the others cannot hold buffers above 64 MB; no mapping of single buffers,
# and nothing trimmed below 4 GiB, because both give back what the next step wants. They are read
# when the process starts, hence the new start.
NAME = "GLIBC_TUNABLES"
VALUE = ":".join(
    f"glibc.malloc.{setting}"
    for setting in ("hugetlb=1", "arena_max=1", "mmap_max=0", f"trim_threshold={4 * 2**30}")
)


def restart_with_allocator() -> None:
    """Starts the program anew with the settings, unless it has some; best before long imports."""
    if sys.platform == "linux" and NAME not in os.environ:
        os.environ[NAME] = VALUE
        # Not sys.argv: a module started with -m would become a script with other imports.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
