"""Processes that do part of the work of this one and are spoken to through pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jaxmat
from jaxmat.runtime import allocator
from jaxmat.runtime.stopping import deaf_processes


def start_child(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Starts a process of the same Python, which finds this package where this process has it.

    It hears no signals, see `deaf_processes`: whoever has started it ends it.

    Args:
        *arguments: of Python, such as "-m" and "jaxmat.data.graph_worker".
        **environment: variables besides those of this process.
    """
    # Without a buffer of Python's, what is written may end where the pipe is full.
    environment = {"PYTHONUNBUFFERED": ""} | allocator.of_children() | environment
    package = str(Path(jaxmat.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with deaf_processes():
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": path},
        )
