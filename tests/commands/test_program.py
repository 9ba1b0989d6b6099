"""How programs start."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import jax
import pytest

from jaxmat.commands.program import return_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told to give memory back")
def test_freed_memory_is_returned_after_each_compilation(monkeypatch):
    trims: list[int] = []
    library = SimpleNamespace(malloc_trim=trims.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return_freed_memory()
    program = jax.jit(lambda x: 3 * x + 1)
    before = len(trims)
    program(1.0)
    compiled = len(trims)
    program(2.0)
    assert before < compiled == len(trims)
