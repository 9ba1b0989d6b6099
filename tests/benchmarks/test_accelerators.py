"""The training step compiles for accelerators that are not there, and its update in few kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.accelerators import count

CASES = Path(__file__).with_name("accelerator_cases.py")
COMPILERS = {"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda13"}

PROGRAM = """HloModule jit_f

%branch_0 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %copy.1 = f32[4]{0} copy(%p)
}

%branch_1 (p.1: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  %a.2 = (f32[4]{0}, f32[]) fusion(%p.1), kind=kLoop, calls=%fused
  %b.3 = f32[4]{0} get-tuple-element(%a.2), index=0
  ROOT %c.4 = f32[4]{0} fusion(%b.3), kind=kLoop, calls=%fused
}

ENTRY %main (x: f32[4], i: s32[]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %i = s32[] parameter(1)
  %d.5 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %e.6 = f32[4]{0} conditional(%i, %d.5, %d.5), branch_computations={%branch_0, %branch_1}
}
"""


def installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_kernels_are_those_of_the_longest_branch() -> None:
    found = count(PROGRAM)
    assert (found.kernels, found.scatters) == (1 + 2, 0)
    # Four floats in and out; then four in, four and one out, and four in and out.
    assert found.bytes == 4 * (8 + 9 + 8)


@pytest.mark.slow
@pytest.mark.parametrize("target", COMPILERS)
def test_both_programs_compile(target: str) -> None:
    """Each trunk in float32, one in bfloat16, one in all layouts on four devices."""
    if not installed(COMPILERS[target]):
        pytest.skip(f"the compiler is not installed: pip install .[accelerators] ({target})")
    done = subprocess.run(
        [sys.executable, str(CASES), target],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(CASES.parents[2]), os.environ.get("PYTHONPATH")])
            ),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout.splitlines()[-1])
    layouts = [f"cogn float32 {layout}" for layout in ("one", "pmap", "shard_map", "population")]
    assert set(kernels) == {"alignn float32 one", "alignn bfloat16 one", *layouts}
    assert all(each["gradients"] > 0 and each["update"] > 0 for each in kernels.values())
    if target == "cuda":  # a TPU has one program, whatever its parts are
        assert all(each["update"] <= 50 for each in kernels.values())
