"""Settings for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from hypothesis import settings

from jaxmat.data import reading

# Programs that run once are compiled sooner where they are not optimised, and three times as fast
# by XLA's older emitters of fused operations. JAX reads it when it is first used, and so do the
# processes that tests start.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

# Examples have no deadline: machines that run tests are busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def no_reading_processes() -> None:
    """Tests read in their own process unless they ask for others, which take long to start."""
    reading.DEFAULT_WORKERS = 0


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lets equal programs of different tests be compiled once, in processes they start, too.

    So it is with graphs. Nothing is kept in the user's own caches.
    """
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    folder = tmp_path_factory.mktemp("xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def run_jaxmat() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command: run_jaxmat("predict", "--model=...", cwd=...)."""

    def run(
        *arguments: object, cwd: Path | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("jaxmat"), *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
