"""The processes that read: they get tasks, and are stopped where one takes too long.

All in one thread: whenever rows are asked for, tasks are given to idle processes and what the
others have to say is taken in. Rows come out in the order of the tasks.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from jaxmat.data.layouts.rows import Row, Wanted
from jaxmat.data.reading_worker import Finished, Message, Tally, receive, without
from jaxmat.errors import UserError
from jaxmat.runtime.children import start_child

_BYTES_A_SECOND = 1e7  # of a table, packed or not: a tenth of what is usual
_LOOK_SECONDS = 1.0  # between two looks at how long processes have been silent
_START_SECONDS = 120.0  # until a process has said that it is there, on a busy machine
_PROGRAM = ["-m", "jaxmat.data.reading_worker"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What reading one structure may take; tables are read row by row, so they may be long.

    Attributes:
        seconds: without a row finished, after which a process is stopped. The one that opens a
            table has another second for each 10 MB of it: some are to be read to their end first.
        megabytes: of memory of a process.
    """

    seconds: float = 8.0
    megabytes: int = 1400


DEFAULT_LIMITS = Limits()


@dataclass
class Task:
    """What a process is to do.

    Attributes:
        sources: paths of files to read wholly; or
        opens: path of a table to open, whose rows others read; or
        rows: to read, of the table `opens`.
        size: bytes of that table.
        tally: of the rows of that table.
        share: of all sources that is read before it and with it.
        begun: how many rows of the first of the sources are read or being read.
        reading: the row of a table that is being read.
        finished: rows so far.
        done: whether there are no more.
    """

    sources: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    opens: str = ""
    size: int = 0
    tally: Tally | None = None
    share: tuple[float, float] = (0.0, 0.0)
    begun: int = 0
    reading: Row | None = None
    finished: deque[Finished] = field(default_factory=deque)
    done: bool = False

    def message(self, wanted: Wanted) -> bytes:
        """Returns the task as the process understands it."""
        task: dict[str, Any] = wanted._asdict()
        if self.rows:
            task["rows"] = self.rows
        elif self.opens:
            task["open"] = self.opens
        else:
            task |= {"sources": self.sources, "skip": self.begun}
        return json.dumps(task).encode() + b"\n"


class _Process:
    """A process at work."""

    def __init__(self, limits: Limits) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.child = start_child(
            *_PROGRAM, str(limits.megabytes), **one_thread, PYTHONWARNINGS="ignore"
        )
        assert self.child.stdin and self.child.stdout
        self.input, self.output = self.child.stdin, self.child.stdout
        os.set_blocking(self.output.fileno(), False)
        self.data = bytearray()
        self.task: Task | None = None
        self.waited = 0.0  # s, since it last said something
        self.extra = 0.0  # s that it may be silent beyond the limit
        self.started = False

    def give(self, task: Task, wanted: Wanted) -> None:
        self.task, self.waited = task, 0.0
        with suppress(BrokenPipeError):  # it has died, which is found when it is listened to
            self.input.write(task.message(wanted))
            self.input.flush()

    def listen(self) -> bytes | None:
        """Returns what it says, None where it is silent, nothing where it has died."""
        try:
            return os.read(self.output.fileno(), 2**20)
        except BlockingIOError:
            return None

    def stop(self) -> None:
        self.child.kill()
        for stream in (self.input, self.output):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self.child.wait()


class ReadingPool:
    """Some processes that read; use it in a with statement."""

    def __init__(self, workers: int, limits: Limits, wanted: Wanted) -> None:
        """Starts nothing yet: processes are started when there is work for them."""
        self._workers, self._limits, self._wanted = workers, limits, wanted
        self._readers: list[_Process] = []
        self._opener: _Process | None = None
        self._selector = selectors.DefaultSelector()
        self._unlimited = False

    def __enter__(self) -> ReadingPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in [*self._readers, *([self._opener] if self._opener else [])]:
            process.stop()
        self._selector.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """Yields the rows of tasks, in order; a few tasks are taken ahead.

        Args:
            tasks: to read files, or to open tables. Tasks with neither are what others have done.
        """
        source = iter(tasks)
        queue: deque[Task] = deque()  # in the order of their rows
        waiting: deque[Task] = deque()  # not given to a process yet
        opening: Task | None = None
        more = True
        while more or queue:
            while more and opening is None and len(queue) < self._ahead():
                task = next(source, None)
                if task is None:
                    more = False
                elif task.opens:
                    opening = task
                    opening.tally = Tally()
                    self._open(task)
                else:
                    queue.append(task)
                    if not task.done:
                        waiting.append(task)
            self._give(waiting)
            while queue and queue[0].finished:
                task, finished = queue[0], queue[0].finished.popleft()
                if task.tally is not None and task.tally.hopeless:
                    continue
                yield finished._replace(share=task.share[1])
                if task.tally is not None and task.tally.add(bool(finished.reason)):
                    yield without(task.opens, task.tally.describe())
                    if opening is not None and opening.tally is task.tally:
                        self._end_opener()
                        opening = None
            if queue and queue[0].done:
                queue.popleft()
                continue
            if not queue and opening is None:
                continue
            for process, messages, dead in self._listen(
                listen_to_opener=len(queue) < self._ahead()
            ):
                if process is self._opener:
                    new = self._take_opened(opening, messages, dead)
                    queue.extend(new)
                    waiting.extend(task for task in new if not task.done)
                    if opening is not None and opening.done:
                        opening = None
                else:
                    self._take(process, messages, dead, waiting, queue)

    def _ahead(self) -> int:
        return 2 * self._workers + 2

    def _start(self) -> _Process:
        process = _Process(self._limits)
        self._selector.register(process.output, selectors.EVENT_READ, process)
        return process

    def _end(self, process: _Process) -> None:
        self._selector.unregister(process.output)
        process.stop()

    def _open(self, task: Task) -> None:
        if self._opener is None:
            self._opener = self._start()
        self._opener.extra = task.size / _BYTES_A_SECOND
        self._opener.give(task, self._wanted)

    def _give(self, waiting: deque[Task]) -> None:
        """Gives tasks to idle processes; another is started where one has as much to do already."""
        while waiting:
            process = next((one for one in self._readers if one.task is None), None)
            if process is None and len(self._readers) < self._workers:
                process = self._start()
                self._readers.append(process)
            if process is None:
                return
            process.give(waiting.popleft(), self._wanted)

    def _listen(self, listen_to_opener: bool) -> Iterator[tuple[_Process, list[Message], str]]:
        """Yields processes that have said something, or are to be stopped, and why."""
        busy = [one for one in self._readers if one.task is not None]
        if listen_to_opener and self._opener is not None and self._opener.task is not None:
            busy.append(self._opener)
        began = time.monotonic()
        left = min((self._patience(one) - one.waited for one in busy), default=0.0)
        ready = {key.data for key, _ in self._selector.select(min(max(left, 0.0), _LOOK_SECONDS))}
        # What this program was suspended for (Ctrl-Z), perhaps with the others, is no one's fault.
        waited = min(time.monotonic() - began, _LOOK_SECONDS)
        for process in busy:
            data = process.listen() if process in ready else None
            if data is None:
                process.waited += waited
                if process.waited >= self._patience(process):
                    yield process, [], f"takes more than {self._patience(process):.3g} s"
            elif data:
                process.waited = 0.0
                process.data += data
                yield process, self._understand(process), ""
            else:
                code = process.child.wait()
                if not process.started:
                    raise UserError(
                        f"A process that reads files ends as it starts (exit code {code}); is the "
                        f"limit of {self._limits.megabytes} MB too low?"
                    )
                yield process, [], f"ends the process that reads it (exit code {code})"

    def _patience(self, process: _Process) -> float:
        """Returns the seconds that a process may be silent."""
        return self._limits.seconds + process.extra if process.started else _START_SECONDS

    def _understand(self, process: _Process) -> list[Message]:
        messages = list(receive(process.data))
        process.started = process.started or bool(messages)
        for message in messages:
            if message.kind == "limited" and not message.value and not self._unlimited:
                self._unlimited = True
                _logger.warning("This system does not limit the memory of the readers.")
        return [message for message in messages if message.kind != "limited"]

    def _take(
        self,
        process: _Process,
        messages: Sequence[Message],
        dead: str,
        waiting: deque[Task],
        queue: deque[Task],
    ) -> None:
        """Takes in rows of a task; what is left of that of a process that is stopped goes on."""
        task = process.task
        assert task is not None
        for kind, value, content in messages:
            if kind == "begin":
                task.reading, task.begun = Row(*value), task.begun + 1
            elif kind == "row":
                task.reading = None
                id, name, place, labels, reason, remarks, file = value
                row = Row(id, name, place, "", "", [], labels)
                named = tuple(file) if file else None
                task.finished.append(Finished(row, content, reason, remarks, file=named))
                if task.rows:
                    task.rows.pop(0)
            elif value:
                task.sources.pop(0)
                task.begun = 0
            else:
                task.done, process.task = True, None
        if dead:
            self._readers.remove(process)
            self._end(process)
            task.finished.append(self._culprit(task, dead))
            if task.rows or task.sources:  # what is left of it comes right after
                rest = replace(task, finished=deque(), done=False)
                queue.insert(queue.index(task) + 1, rest)
                waiting.appendleft(rest)
            task.done = True

    def _culprit(self, task: Task, dead: str) -> Finished:
        """Returns the row that a process was at, which is taken from its task."""
        reason = f"size: reading it {dead}"
        row = task.rows.pop(0) if task.rows else task.reading
        if row is not None:
            task.reading = None
            return Finished(row._replace(kind="", content="", key=[]), None, reason, [])
        if task.begun:
            reason += "; the rest is left out"
            task.begun = 0
        return without(task.sources.pop(0), reason)

    def _take_opened(
        self, opening: Task | None, messages: Sequence[Message], dead: str
    ) -> list[Task]:
        """Returns tasks for the rows that an opened table has given."""
        assert opening is not None and self._opener is not None
        new = []
        for kind, value, _ in messages:
            if kind == "rows":
                (start, end), (share, rows) = opening.share, value
                share = start + share * (end - start)
                found, ends = [Row(*row) for row in rows], (start, share)
                new.append(Task(rows=found, opens=opening.opens, tally=opening.tally, share=ends))
            else:
                opening.done, self._opener.task = True, None
        if dead:
            failed = without(opening.opens, f"size: reading it {dead}; the rest is left out")
            new.append(Task(finished=deque([failed]), done=True))
            self._end_opener()
            opening.done = True
        return new

    def _end_opener(self) -> None:
        if self._opener is not None:
            self._end(self._opener)
            self._opener = None
