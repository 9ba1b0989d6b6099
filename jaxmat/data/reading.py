"""Crystals from outside, one by one: files, folders, tables and structures become one stream.

This is the only way in: predicting, embedding, training, evaluating, choosing and uniting read with
it. Processes with limits of memory and time do the reading; what cannot be read is a row with a
reason and harms no other.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import IStructure, Structure

from jaxmat.crystals.checks import find_problem
from jaxmat.crystals.content import Content
from jaxmat.crystals.objects import as_structure, is_crystal
from jaxmat.data.formats.recognise import format_of_name, unpacked_name
from jaxmat.data.formats.sites import Parsed, one_atom_a_site
from jaxmat.data.layouts.files import FOLDER_TABLES
from jaxmat.data.layouts.rows import ALL, FileStamp, Row, Wanted
from jaxmat.data.reading_pool import DEFAULT_LIMITS, Limits, ReadingPool, Task
from jaxmat.data.reading_worker import Finished, read_source, without
from jaxmat.errors import UserError, counted
from jaxmat.runtime.files import is_address, writable
from jaxmat.runtime.stopping import waited_for

BUNDLED = "bundled:"
# Any is an object of ASE, see `as_structure`.
Source = str | Path | IStructure | Any
SOURCES_HELP = (
    "Files (CIF, POSCAR, pymatgen or JARVIS JSON, extended XYZ), folders with all such files in "
    "them and below, tables (CSV, JSON of pandas, Matbench or JARVIS, JSON lines, id_prop folders, "
    "ASE databases) or bundled:NAME."
)
# Processes where nobody says how many: None: one for each core.
DEFAULT_WORKERS: int | None = None
# Files of a task: enough to make messages few, few enough to keep all processes busy.
_TASK_FILES = 16
# Bytes of a file from which on its rows are shared among processes.
_WORTH_SHARING = 2**18

_logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What became of a crystal from outside.

    Attributes:
        id: by the column of ids, else `name`.
        name: the path of a file, with @0, @1, ... for the frames of one that holds several; the
            index of a table's row; the number of a structure.
        place: where a row stands in its table, such as "line 3".
        content: the crystal, None where there is none.
        reason: why there is no crystal, "" where there is one or none was asked for. It begins with
            the kind of problem and a colon.
        remarks: what is to be known about the crystal.
        labels: the other cells of a row, by column.
        share: of all sources that is read, 0 to 1, more or less.
        file: that a row names, see `file_stamp`; None where all is in the table.
    """

    id: str
    name: str
    place: str
    content: Content | None
    reason: str
    remarks: list[str]
    labels: dict[str, Any]
    share: float
    file: FileStamp | None = None

    @property
    def structure(self) -> Structure:
        """The crystal; there has to be one."""
        assert self.content is not None
        return self.content.structure()


def read(
    sources: Source | Iterable[Source],
    wanted: Wanted = ALL,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
) -> Iterator[Reading]:
    """Yields every crystal of some sources, in order.

    Args:
        sources: one or several, each of them
            a file, whose contents tell its format: CIF, POSCAR, pymatgen or JARVIS JSON, extended
            XYZ, gzipped or not; or a table of them, see docs/data.md;
            a folder: the table id_prop.csv in it, or every file in it and below whose name says one
            of the formats, in the order of their paths;
            "bundled:NAME", a table that comes with jaxmat;
            a crystal in memory, see `as_structure`.
        wanted: what is asked for of tables.
        limits: of reading one structure.
        workers: processes that read; None: one for each core; 0: none, all is read here and
            without limits, as bundled tables and structures always are.
    """
    # What is nothing of all this is told of in its row.
    one = isinstance(sources, (str, Path)) or is_crystal(sources)
    sources = [*sources] if isinstance(sources, Iterable) and not one else [sources]
    count = DEFAULT_WORKERS if workers is None else workers
    count = _cores() if count is None else count
    if all(_is_own(source) for source in sources):
        count = 0
    tasks = _tasks(sources, count)
    with ReadingPool(count, limits, wanted) if count else nullcontext() as pool:
        rows = pool.run(tasks) if pool else _run_here(tasks, wanted, limits)
        for finished in waited_for(rows):
            row, content, reason, remarks, share, file = finished
            about = writable(row.id or row.name), writable(row.name), row.place
            yield Reading(*about, content, reason, remarks, row.labels, share, file)


def _is_own(source: Source) -> bool:
    return not isinstance(source, (str, Path)) or str(source).startswith(BUNDLED)


def _run_here(tasks: Iterable[Task], wanted: Wanted, limits: Limits) -> Iterator[Finished]:
    """Yields the rows of tasks, all of which this process reads."""
    for task in tasks:
        for finished in task.finished:
            yield finished._replace(share=task.share[1])
        for source in task.sources:
            for finished in read_source(source, wanted, limits.megabytes):
                yield finished._replace(share=task.share[1])


def _tasks(sources: Sequence[Source], workers: int) -> Iterator[Task]:
    for number, source in enumerate(sources):
        start, end = number / len(sources), (number + 1) / len(sources)
        for task in _source_tasks(number, source, workers):
            low, high = task.share
            task.share = start + low * (end - start), start + high * (end - start)
            yield task


def _source_tasks(number: int, source: Source, workers: int) -> Iterator[Task]:
    if not isinstance(source, (str, Path)):
        yield _done(_read_crystal(str(number), source))
    elif str(source).startswith(BUNDLED):
        try:
            yield _file_task(bundled_path(str(source).removeprefix(BUNDLED)), workers)
        except UserError as problem:
            yield _done(_failed(str(source), str(problem)))
    elif os.path.isdir(source):
        yield from _folder_tasks(Path(source), workers)
    elif is_address(source):
        told = f"{source} is an address, not a file: copy what is there to a disk"
        yield _done(_failed(str(source), told))
    elif not os.path.exists(source):
        yield _done(_failed(str(source), f"there is no file or folder {source}"))
    else:
        yield _file_task(str(source), workers)


def bundled_path(name: str) -> str:
    """Returns the file of a table that comes with jaxmat.

    Raises:
        UserError: there is none of this name.
    """
    folder = resources.files("jaxmat.data") / "bundled"
    files = {
        file.name.removesuffix(".json.gz"): str(file)
        for file in folder.iterdir()
        if file.name.endswith(".json.gz")
    }
    if name not in files:
        raise UserError(f"no bundled table {name!r}; there are: {', '.join(sorted(files))}")
    return files[name]


def _file_task(path: str, workers: int) -> Task:
    try:
        size = os.path.getsize(path)
    except OSError:
        size = 0  # reading it tells what is wrong
    if workers and size > _WORTH_SHARING:
        return Task(opens=path, size=size, share=(0, 1))
    return Task(sources=[path], share=(0, 1))


def folder_table(folder: Path) -> Path | None:
    """Returns the table of a folder of CGCNN or ALIGNN, None where there is none."""
    there = {unpacked_name(path.name.lower()): path for path in sorted(folder.glob("[iI][dD]_*"))}
    return next((there[name] for name in FOLDER_TABLES if name in there), None)


def find_table(path: str) -> str | None:
    """Returns the file of a table: itself, that of a bundled one, or the table in a folder.

    Raises:
        UserError: there is no bundled table of this name.
    """
    if path.startswith(BUNDLED):
        return bundled_path(path.removeprefix(BUNDLED))
    if not os.path.isdir(path):
        return path
    table = folder_table(Path(path))
    return None if table is None else str(table)


def _folder_tasks(folder: Path, workers: int) -> Iterator[Task]:
    if table := folder_table(folder):
        yield _file_task(str(table), workers)
        return
    # Counted first, and listed again as they are read: no list of all names is kept.
    total = others = 0
    for path in _files_below(str(folder)):
        total += _is_structure(path)
        others += not _is_structure(path)
    if others:
        text = "%s: passed over %s of names that say no structure format"
        _logger.info(text, folder, counted(others, "file"))
    if not total:
        reason = "the folder holds no CIF, POSCAR, JSON or extended XYZ"
        yield _done(_failed(str(folder), reason))
    known = filter(_is_structure, _files_below(str(folder)))
    done = 0
    while sources := list(islice(known, _TASK_FILES)):
        before, done = done, done + len(sources)
        yield Task(sources=sources, share=(min(before / total, 1), min(done / total, 1)))


def _is_structure(path: str) -> bool:
    name = os.path.basename(path)
    return bool(format_of_name(name)) and name != "atom_init.json"  # features of CGCNN


def _files_below(folder: str) -> Iterator[str]:
    """Yields the files in a folder and below, in the order of their paths; links are not followed.

    One folder at a time is listed.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = {e.name: (e.is_dir(), e.is_symlink()) for e in entries}
    except OSError as reason:
        _logger.warning("%s cannot be listed (%s): left out", folder, reason.strerror)
        return
    for name in sorted(kinds):
        is_folder, is_link = kinds[name]
        path = name if folder == "." else os.path.join(folder, name)
        if not is_folder:
            yield path
        elif not is_link:
            yield from _files_below(path)


def _done(finished: Finished) -> Task:
    return Task(finished=deque([finished]), done=True, share=(0, 1))


def _failed(name: str, reason: str) -> Finished:
    return without(name, f"unreadable: {reason}")


def _read_crystal(name: str, crystal: object) -> Finished:
    """Returns what becomes of a crystal in memory."""
    row = Row("", name, "", "", "", [], {})
    try:
        content, remarks = one_atom_a_site(_parse_structure(as_structure(crystal)))
    except UserError as problem:
        return Finished(row, None, str(problem), [])
    if reason := find_problem(content):
        return Finished(row, None, reason, [])
    return Finished(row, content, "", remarks)


def _parse_structure(structure: Structure) -> Parsed:
    species = [
        (number, one.symbol, float(amount))
        for number, site in enumerate(structure)
        for one, amount in site.species.items()
    ]
    if empty := set(range(len(structure))) - {number for number, _, _ in species}:
        raise UserError(f"structure: site {min(empty)} has no species")
    number = np.array([n for n, _, _ in species], np.int64)
    return Parsed(
        structure.lattice.matrix,
        [symbol for _, symbol, _ in species],
        structure.frac_coords[number],
        np.array([amount for _, _, amount in species]),
        number,
        periodic=structure.pbc,
    )


def _cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
