"""The machine's float32 matmul rate: python -m benchmarks.matmul.

For each line that comes in, says how many operations it has done and in how many seconds.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.processes import serve

_ROWS, _REPEATS = 2048, 10


def main() -> None:
    """Answers each line of standard input."""
    matrix = jnp.full((_ROWS, _ROWS), 1 / _ROWS, jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()

    def turn() -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(_REPEATS):
            multiply(matrix, matrix).block_until_ready()
        return {"seconds": time.perf_counter() - began, "flops": 2 * _ROWS**3 * _REPEATS}

    serve({"device": str(jax.devices()[0])}, turn)


if __name__ == "__main__":
    main()
