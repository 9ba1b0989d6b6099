"""A process that builds graphs into a store: python -m jaxmat.data.graph_worker PATH SETTINGS.

Both of its ends are here. It is started as a program of its own: a fork of a process that runs JAX
may hang, and the other ways of multiprocessing import the main program again, JAX included. A job
goes in as the length of an *.npz and the *.npz; out comes a line of JSON: what failed, and why.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from jaxmat.crystals.graph import GraphSettings, build_graph, build_graphs
from jaxmat.data.contents import Contents
from jaxmat.data.store import StoreError, append
from jaxmat.errors import UserError
from jaxmat.runtime.children import start_child

_LENGTH_BYTES = 8


class Job(NamedTuple):
    """Crystals whose graphs are to be built.

    Attributes:
        keys: of the contents of the crystals, [crystals].
        contents: the crystals.
    """

    keys: np.ndarray
    contents: Contents


class Failure(NamedTuple):
    """A crystal that has no graph.

    Attributes:
        number: of the crystal in its job.
        reason: why it has none.
    """

    number: int
    reason: str


def build_into(path: Path, settings: GraphSettings, job: Job) -> list[Failure]:
    """Adds the graphs of crystals to a store.

    Args:
        path: from `store_path` of these settings.
        settings: of the graphs.
        job: the crystals.

    Returns:
        The crystals that have no graph.

    Raises:
        StoreError: the store cannot be written.
    """
    failures: list[Failure] = []
    try:
        graphs = list(build_graphs(job.contents, settings))
    except Exception:  # one of them has none: which one shows when each is built on its own
        graphs = []
        for number, crystal in enumerate(job.contents):
            try:
                graphs.append(build_graph(crystal, settings))
            except UserError as reason:
                failures.append(Failure(number, str(reason)))
            except Exception as reason:
                failures.append(Failure(number, f"{type(reason).__name__}: {reason}"))
    built = np.delete(job.keys, [failure.number for failure in failures])
    append(path, settings, built, graphs)
    return failures


class GraphWorker:
    """A process that does jobs, one after another; use it in a with statement."""

    def __init__(self, path: Path, settings: GraphSettings) -> None:
        """Starts the process; see `build_into` for the arguments."""
        self._process = start_child("-m", __name__, str(path), json.dumps(settings.to_dict()))

    def __enter__(self) -> GraphWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Its input is closed, so that it ends after the job it is at. One that has died cannot be
        # given the rest of a job, which still waits to be written.
        with suppress(BrokenPipeError):
            self._process.__exit__(kind, error, trace)

    def kill(self) -> None:
        """Ends the process in the middle of a job; what it has added to the store is whole."""
        self._process.kill()

    def build(self, job: Job) -> list[Failure]:
        """Returns what `build_into` returns.

        Raises:
            StoreError: the process could not write.
            UserError: it has died.
        """
        assert self._process.stdin and self._process.stdout
        data = _to_bytes(job)
        try:
            self._process.stdin.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise UserError(
                f"A process that builds graphs has died (exit code {self._process.wait()}; -9 "
                "means killed, as for want of memory). What it had built is kept: run again."
            )
        result = json.loads(answer)
        if "error" in result:
            raise StoreError(result["error"])
        return [Failure(*failure) for failure in result["failures"]]


def main(path: str, settings: str) -> None:
    """Does the jobs that come in by standard input, until it is closed."""
    # Whatever else is printed must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    graph = GraphSettings(**json.loads(settings))
    while length := sys.stdin.buffer.read(_LENGTH_BYTES):
        data = sys.stdin.buffer.read(int.from_bytes(length, "little"))
        answer: dict[str, Any]
        try:
            answer = {"failures": build_into(Path(path), graph, _from_bytes(data))}
        except StoreError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _to_bytes(job: Job) -> bytes:
    crystals = np.frombuffer(job.contents.to_bytes(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, keys=job.keys, sites=job.contents.sites, crystals=crystals)
    return stream.getvalue()


def _from_bytes(data: bytes) -> Job:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        contents = Contents.consecutive(arrays["crystals"], arrays["sites"])
        return Job(arrays["keys"], contents)


if __name__ == "__main__":
    main(*sys.argv[1:])
