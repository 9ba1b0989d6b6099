"""Crystals → graphs from a store; what it lacks is built first, by several processes."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.contents import Contents
from jaxmat.data.graph_worker import Failure, GraphWorker, Job, build_into
from jaxmat.data.store import GraphStore, StoreError, open_store, store_path
from jaxmat.errors import UserError, counted, listed
from jaxmat.runtime.bars import progress_bar
from jaxmat.runtime.durations import in_words
from jaxmat.runtime.stopping import Stopped, giving_up_at_once

# Sites of a job: a fraction of a second, which is what a kill loses.
_JOB_SITES = 4000
# So many jobs are worth the half second that workers take to start.
_WORTH_WORKERS = 6
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LOG_LINES = 30.0

_logger = logging.getLogger(__name__)


@giving_up_at_once()
def stored_graphs(
    ids: Sequence[str],
    contents: Contents,
    settings: GraphSettings,
    folder: Path,
    workers: int | None = None,
) -> GraphStore:
    """Returns the graphs of crystals, in order, from a store; what it lacks is added first.

    A graph is found again by the exact numbers of its crystal, whatever table holds it. Stopped at
    any moment, this goes on where it was when called again. Several processes that lack the same
    graphs share the work. Graphs are held against their digests, and damaged ones are built anew.
    Where the folder cannot be read or written, there is a warning, and graphs are built for this
    process alone.

    Args:
        ids: of the crystals, for messages.
        contents: crystals that `find_problem` lets pass.
        settings: how crystals become graphs.
        folder: of stores.
        workers: processes that build where there is much to do; None: one for each core.

    Raises:
        UserError: crystals that have no graph, reported together once the others are built; or
            there is no room for graphs at all.
    """
    keys = contents.keys()
    try:
        return _stored(ids, contents, keys, settings, store_path(folder, settings), workers)
    except StoreError as problem:
        _logger.warning(
            "%s. The graphs are built for this run alone. Set config.data.graph_store (or the "
            "environment variable XDG_CACHE_HOME, for all caches) to another folder.",
            problem,
        )
    with tempfile.TemporaryDirectory(prefix="jaxmat-graphs-") as folder_of_run:
        # What is mapped outlasts its name.
        return _stored(ids, contents, keys, settings, Path(folder_of_run), workers)


def _stored(
    ids: Sequence[str],
    contents: Contents,
    keys: np.ndarray,
    settings: GraphSettings,
    path: Path,
    workers: int | None,
) -> GraphStore:
    """Returns the graphs of crystals with these keys from the store in a folder of its own.

    Raises:
        StoreError: it cannot be read or written.
        UserError: crystals that have no graph.
    """
    store = open_store(path)
    rows = store.find(keys)
    missing = _missing(store, keys, rows)
    if len(missing):
        lacking = _Lacking(contents.take(missing), keys[missing], rows[missing])
        failures = _build(lacking, settings, path, workers or _cores())
        if problems := [f"{ids[missing[i]]}: {reason}" for i, reason in failures]:
            raise UserError(
                f"{len(problems)} of {len(contents)} crystals have no graph; mend them or leave "
                f"them out (the graphs of the others are kept):\n{listed(problems)}"
            )
        store = open_store(path)
        rows = store.find(keys)
    if (rows < 0).any():
        raise UserError(f"{path}: graphs that were just written are gone; delete this folder.")
    return store.take(rows)


def _missing(store: GraphStore, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the crystals that are not in the store or damaged there, in order, equal ones once.

    This is where a process reads a graph for the first time, so it is held against its digest.
    """
    here = np.unique(rows[rows >= 0])
    damaged = here[~store.take(here).intact()]
    if len(damaged):
        _logger.warning("Damaged, and built anew: %s", counted(len(damaged), "stored graph"))
    absent = np.flatnonzero((rows < 0) | np.isin(rows, damaged))
    _, first = np.unique(keys[absent], return_index=True)
    return absent[np.sort(first)]


class _Lacking(NamedTuple):
    """The crystals whose graphs a store lacks.

    Attributes:
        contents: the crystals.
        keys: of their contents, [crystals].
        rows: in the store of their damaged graphs, -1 where there is none, [crystals].
    """

    contents: Contents
    keys: np.ndarray
    rows: np.ndarray


class _Part(NamedTuple):
    """A job of the crystals that are lacking.

    Attributes:
        job: what is to be built.
        numbers: of its crystals among those that are lacking, [crystals].
        reached: how many of these there are once it is done, whichever process built them.
    """

    job: Job
    numbers: np.ndarray
    reached: int


class _Result(NamedTuple):
    """What has come of a part.

    Attributes:
        part: that is done.
        failures: its crystals that have no graph, by their number in its job.
    """

    part: _Part
    failures: list[Failure]


def _blocks(sites: np.ndarray) -> list[range]:
    """Returns consecutive crystals with at most `_JOB_SITES` sites together, or one with more."""
    ends = np.cumsum(sites)
    blocks, start = [], 0
    while start < len(sites):
        before = ends[start] - sites[start]
        end = max(start + 1, int(np.searchsorted(ends, before + _JOB_SITES, side="right")))
        blocks.append(range(start, end))
        start = end
    return blocks


def _parts(lacking: _Lacking, blocks: Sequence[range], path: Path) -> Iterator[_Part]:
    """Yields all that is lacking but what other processes add meanwhile.

    In random order: in any other one, processes that start together would build the same graphs.
    """
    absent = np.ones(len(lacking.keys), bool)
    looked, reached = time.monotonic(), 0
    for block in np.random.default_rng().permutation(len(blocks)).tolist():
        if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
            absent = open_store(path).find(lacking.keys) == lacking.rows
            looked = time.monotonic()
        numbers = np.array(blocks[block])
        reached += len(numbers)
        numbers = numbers[absent[numbers]]
        if len(numbers):
            job = Job(lacking.keys[numbers], lacking.contents.take(numbers))
            yield _Part(job, numbers, reached)


def _build(lacking: _Lacking, settings: GraphSettings, path: Path, workers: int) -> list[Failure]:
    """Adds the graphs of crystals to a store; returns those that have none, by their number."""
    blocks = _blocks(lacking.contents.sites)
    parts = _parts(lacking, blocks, path)
    if workers > 1 and len(blocks) >= _WORTH_WORKERS:
        results = _build_in_workers(parts, settings, path, workers)
    else:
        results = (_Result(part, build_into(path, settings, part.job)) for part in parts)

    began = time.monotonic()
    failures: list[Failure] = []
    built = 0
    for part, failed in _watch(results, len(lacking.keys)):
        failures += [Failure(int(part.numbers[number]), reason) for number, reason in failed]
        built += len(part.numbers)
    seconds = time.monotonic() - began
    _logger.info(
        "%s built in %.1f s, %.0f/s%s: %s",
        counted(built, "graph"),
        seconds,
        built / seconds,
        f" ({others} by other processes)" if (others := len(lacking.keys) - built) else "",
        path,
    )
    return sorted(failures)


def _build_in_workers(
    parts: Iterable[_Part], settings: GraphSettings, path: Path, workers: int
) -> Iterator[_Result]:
    """Yields the results of parts, in order; few of them wait at a time."""
    with ExitStack() as stack:
        started = [stack.enter_context(GraphWorker(path, settings)) for _ in range(workers)]
        idle: SimpleQueue[GraphWorker] = SimpleQueue()
        for worker in started:
            idle.put(worker)
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        # Where this is left early, jobs that have not begun are dropped.
        stack.callback(threads.shutdown, cancel_futures=True)

        def build(part: _Part) -> _Result:
            worker = idle.get()
            try:
                return _Result(part, worker.build(part.job))
            finally:
                idle.put(worker)

        pending: deque[Future[_Result]] = deque()
        try:
            for part in parts:
                pending.append(threads.submit(build, part))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except (Stopped, GeneratorExit):  # nobody waits for what they are at
            for worker in started:
                worker.kill()
            raise


def _watch(results: Iterable[_Result], total: int) -> Iterator[_Result]:
    """Yields the results; a bar moves on a terminal, elsewhere a log line comes now and then."""
    began = said = time.monotonic()
    with progress_bar(total, desc="graphs", unit="crystal", smoothing=0) as bar:
        for result in results:
            yield result
            bar.update(result.part.reached - bar.n)
            now = time.monotonic()
            if bar.disable and now - said > _SECONDS_BETWEEN_LOG_LINES:
                done = result.part.reached
                left = in_words((now - began) / done * (total - done))
                _logger.info("%d of %d graphs built, %s left", done, total, left)
                said = now


def _cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
