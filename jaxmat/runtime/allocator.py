"""The setting of the C library's allocator under which JAX trains fastest."""

from __future__ import annotations

import os
import sys

# Without it the C library returns XLA's buffers to the system after every step, and each step
# faults them in again. It is read when the process starts, hence the new start.
_NAME, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def restart_with_allocator() -> None:
    """Starts the program anew with the setting, unless it has one; best before long imports."""
    if sys.platform == "linux" and _NAME not in os.environ:
        os.environ[_NAME] = _VALUE
        # Not sys.argv: a module started with -m would become a script with other imports.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
