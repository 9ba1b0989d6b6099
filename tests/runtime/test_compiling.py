"""The time that JAX takes to make programs."""

from __future__ import annotations

import time
from contextlib import closing

import jax
import jax.numpy as jnp

from jaxmat.runtime.compiling import CompileClock


def test_making_a_program_is_counted_once_and_running_it_is_not() -> None:
    inner = jax.jit(lambda x: jnp.sin(x @ x).sum())
    outer = jax.jit(lambda x: inner(x) + inner(2 * x))
    began = time.time()
    with closing(CompileClock()) as seconds:
        jax.block_until_ready(outer(jnp.ones((50, 50))))
        first = seconds()
        jax.block_until_ready(outer(jnp.ones((50, 50))))
        assert seconds() == first
    assert 0 < first <= time.time() - began
    jax.block_until_ready(outer(jnp.ones((60, 60))))
    assert seconds() == first  # nobody listens any more
