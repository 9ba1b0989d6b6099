"""Several processes as one program: on the hosts of a cluster, or on one of them.

All of them do the same, each on its own devices and its own share of every batch. The first alone
writes and speaks. What they have to decide together, they decide at the same step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmat.errors import UserError

# How long a process that ends waits for the others. Long waits have barriers of their own.
_SHUTDOWN_SECONDS = 30


def join(processes: int | None = None, process: int | None = None) -> None:
    """Makes this process one of several; to be called before JAX is used.

    Under SLURM, Open MPI and Kubernetes and on TPUs JAX finds the others by itself. Elsewhere the
    environment variable JAX_COORDINATOR_ADDRESS has the host and a free port of the first.

    Args:
        processes: how many there are; None where JAX finds out.
        process: which of them this one is, from 0 on; None where JAX finds out.

    Raises:
        UserError: the others cannot be found or reached.
    """
    # It would take SIGTERM, which has to be Python's: see jaxmat.runtime.stopping.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=processes,
            process_id=process,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
        # Connections are made now: processes that compile first may be late for the time limit.
        wait_for_all("joined")
    except (RuntimeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"--distributed: the other processes are not found ({said}). Where JAX does not find "
            "them by itself, set JAX_COORDINATOR_ADDRESS=HOST:PORT of the first in all of them and "
            "give --processes=N and --process=0 to N-1"
        ) from error
    if not is_first():
        logging.getLogger("jaxmat").setLevel(logging.ERROR)


def is_first() -> bool:
    """Whether this is the process that writes and speaks, as it is where there is one alone."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Waits until all processes have come here.

    Args:
        what: has happened; the same in all of them.
    """
    multihost_utils.sync_global_devices(what)


def require_same(value: str, problem: str) -> None:
    """Checks that all processes have the same value.

    Args:
        value: of this process.
        problem: what to tell the user where they differ.

    Raises:
        UserError: they differ; it is raised in all processes.
    """
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint32)
    digests = multihost_utils.process_allgather(digest)
    if (digests != digests[0]).any():
        raise UserError(problem)


def agreement() -> Callable[[bool], bool]:
    """Returns a function that tells every process whether one of them has been told to stop.

    All processes call it equally often. It answers for the call before, because an answer for
    this one would keep the devices waiting at every step.
    """
    if jax.process_count() == 1:
        return bool
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    divided = NamedSharding(mesh, PartitionSpec("devices"))
    count = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    asked: deque[jax.Array] = deque()

    def agree(told: bool) -> bool:
        mine = np.full(jax.local_device_count(), told, np.int32)
        asked.append(count(jax.make_array_from_process_local_data(divided, mine)))
        return len(asked) > 1 and int(asked.popleft()) > 0

    return agree


def end(code: int) -> NoReturn:
    """Ends the program on a mistake.

    Args:
        code: its exit code.
    """
    if jax.distributed.is_initialized():
        # At once, because the others may be in a computation that waits for this process, which
        # would wait for them. They end, too, when its connections break.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
