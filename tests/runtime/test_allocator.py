"""Memory that a step has freed is there for the next."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmat.runtime import allocator
from jaxmat.runtime.children import start_child

_STEPS = """
import ctypes, resource, threading
from jaxmat.runtime.allocator import restart_with_allocator

restart_with_allocator()
C = ctypes.CDLL(None)
C.malloc.restype = ctypes.c_void_p
faults = []


def step():
    for megabytes in (24, 48, 96):
        buffer = ctypes.c_void_p(C.malloc(megabytes << 20))
        C.memset(buffer, 1, megabytes << 20)
        C.free(buffer)


def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


steps()
thread = threading.Thread(target=steps)
thread.start()
thread.join()
print(*faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_buffers_of_a_step_are_not_faulted_in_again() -> None:
    environment = {k: v for k, v in os.environ.items() if k != allocator.NAME}
    run = subprocess.run(
        [sys.executable, "-c", _STEPS], env=environment, capture_output=True, text=True, check=True
    )
    # 168 MB ten times: 840 faults if pages are huge, and 430,000 if they are not.
    assert all(int(faults) < 100 for faults in run.stdout.split()), run.stdout
    assert len(run.stdout.split()) == 2


@pytest.mark.parametrize(
    ("ours", "childs"),
    [(allocator.VALUE, "glibc.malloc.hugetlb=1"), ("", ""), ("glibc.malloc.perturb=1",) * 2],
)
def test_readers_keep_nothing_and_settings_of_the_user_stand(
    ours: str, childs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(allocator.NAME, ours)
    with start_child("-c", f"import os; print(os.environ[{allocator.NAME!r}])") as child:
        assert child.stdout is not None
        assert child.stdout.read().decode().strip() == childs


def test_the_site_says_what_is_set() -> None:
    page = Path(__file__).parents[2] / "docs" / "times.md"
    assert f"{allocator.NAME}={allocator.VALUE}" in page.read_text(encoding="utf-8")
