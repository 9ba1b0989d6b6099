"""Graphs on disk, memory-mapped: each crystal's is built once and read when asked for.

A store is a folder for one setting of the graphs, named by its hash, which holds
    settings.json   the settings and the version, for people;
    graphs.bin      a record for each crystal: descriptors, lengths and cosines (float64), then
                    whole numbers;
    index.bin       for each record the hash of the crystal, its end, its sizes and their width,
                    and a digest of all that.
All three only grow. A record counts once its row is in the index, where it comes last, so that a
process may be killed at any moment; many may write at once. A record that is not what was written
is found by its digest and passed over; of several for one crystal the last counts, so that it is
mended by adding the graph again. Linux and macOS only (file locks).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from jaxmat.crystals.checks import MAX_ATOMIC_NUMBER
from jaxmat.crystals.descriptors import COLUMNS
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, Joined, join
from jaxmat.errors import UserError
from jaxmat.runtime.files import reason, require_regular

# To be raised whenever the files, or the graph of any crystal under the same settings, change.
VERSION = 3

_SETTINGS, _GRAPHS, _INDEX = "settings.json", "graphs.bin", "index.bin"
_ROW = np.dtype(
    [
        ("key", "S16"),
        ("end", "<i8"),
        ("sizes", "<i4", 3),
        ("width", "<i4"),
        ("digest", "<u8"),
    ]
)
_ABOUT = 40  # bytes of a row before its digest

# The fields of a record in their order, and what each holds a value for.
_KINDS = ("site", "bond", "angle")
_FLOATS = {"bond_length": "bond", "angle_cosine": "angle"}
_INTEGERS = {
    "atomic_number": "site",
    "site_count": "site",
    "bond_sender": "bond",
    "bond_receiver": "bond",
    "bond_multiplicity": "bond",
    "angle_sender": "angle",
    "angle_receiver": "angle",
    "angle_multiplicity": "angle",
}
_FLOATS_OF = np.array([list(_FLOATS.values()).count(kind) for kind in _KINDS])
_INTEGERS_OF = np.array([list(_INTEGERS.values()).count(kind) for kind in _KINDS])
# Records begin at multiples of this, where a float64 can be mapped.
_ALIGNMENT = 8


# Bytes of records after which their pages are given back, and graphs read between two looks.
_HELD, _AT_ONCE = 2**26, 4096


class StoreError(UserError):
    """A store cannot be read or written; graphs can be kept elsewhere."""


class _Records:
    """The mapped file of records, of which a process holds no more than it has just read.

    What was read stays in the system's own cache, from where it is mapped again.

    Attributes:
        bytes: of the file, uint8.
    """

    def __init__(self, file: Path) -> None:
        """Maps a file, if there is one."""
        self.bytes, self._mapping, self._read = np.empty(0, np.uint8), None, 0
        if file.exists() and file.stat().st_size:  # an empty file cannot be mapped
            with file.open("rb") as stream:
                self._mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self.bytes = np.frombuffer(self._mapping, np.uint8)

    def values(self, dtype: str) -> np.ndarray:
        """Returns the whole file as values; a killed process may have left a part of one behind."""
        whole = len(self.bytes) // _ALIGNMENT * _ALIGNMENT
        return self.bytes[:whole].view(dtype)

    def count(self, read: int) -> None:
        """Notes that so many bytes were read."""
        self._read += read
        if self._mapping is not None and self._read >= _HELD:
            self._read = 0
            self._mapping.madvise(mmap.MADV_DONTNEED)


class GraphStore(Sequence[CrystalGraph]):
    """Graphs in a memory-mapped file; a graph is read when it is asked for.

    Attributes:
        sizes: sites, bonds and angles of each graph, int64 [graphs, 3]; known without reading any.
    """

    def __init__(self, records: _Records, rows: np.ndarray) -> None:
        """Use `open_store`.

        Args:
            records: the mapped file.
            rows: of the index, one for each graph.
        """
        self.sizes = rows["sizes"].astype(np.int64)
        self._records, self._rows = records, rows

    @property
    def places(self) -> np.ndarray:
        """Where graphs lie in the file, int64 [graphs]; in this order many are read fastest."""
        places: np.ndarray = self._rows["end"]
        return places

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> CrystalGraph: ...
    @overload
    def __getitem__(self, index: slice) -> GraphStore: ...
    def __getitem__(self, index: int | slice) -> CrystalGraph | GraphStore:
        """Returns a graph, its lengths and cosines a read-only view of the file; or some graphs."""
        if isinstance(index, slice):
            return GraphStore(self._records, self._rows[index])
        row = self._rows[index]
        end, sizes, width = int(row["end"]), row["sizes"].tolist(), int(row["width"])
        floats, integers = map(int, _bytes(row["sizes"], width))
        middle = end - _padded(floats + integers) + floats
        values = self._records.bytes[middle - floats : middle].view("<f8")
        whole = self._records.bytes[middle : middle + integers].view(f"<u{width}").astype(np.int32)
        self._records.count(floats + integers)
        return CrystalGraph(
            descriptors=values[:COLUMNS],
            **_parts(values[COLUMNS:], _FLOATS, sizes),
            **_parts(whole, _INTEGERS, sizes),
        )

    def take(self, indices: np.ndarray) -> GraphStore:
        """Returns some of the graphs, in this order."""
        return GraphStore(self._records, self._rows[indices])

    def joined(self) -> Joined:
        """Returns all graphs one after the other, read from the file in one go."""
        if len(self) == 0:
            return join([])
        values = self.fields([*_FLOATS, *_INTEGERS])
        return Joined(CrystalGraph(descriptors=self.descriptors().ravel(), **values), self.sizes)

    def fields(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns fields of all graphs, each one graph after the other, read in one go.

        Args:
            names: of fields of `CrystalGraph`, without the descriptors.
        """
        widths = self._rows["width"]
        if (widths != widths[0]).any():  # a crystal with very many bonds among others: rare
            rows = join(list(self)).rows
            return {name: getattr(rows, name) for name in names}
        width = int(widths[0])
        floats, integers = _bytes(self.sizes, width)
        middle = self._rows["end"] - _padded(floats + integers) + floats
        start = middle - floats
        values = self._consecutive("<f8", start + 8 * COLUMNS, _FLOATS, names)
        whole = self._consecutive(f"<u{width}", middle, _INTEGERS, names)
        self._records.count(int(np.sum(self._lengths())))
        return values | {name: field.astype(np.int32) for name, field in whole.items()}

    def descriptors(self, columns: Sequence[int] = range(COLUMNS)) -> np.ndarray:
        """Returns columns of the descriptors of all graphs, float64 [graphs, columns]."""
        order = np.argsort(self.places)
        ordered = self.take(order)
        start = ordered.places - ordered._lengths()
        values, found = self._records.values("<f8"), np.empty((len(self), len(columns)))
        for some in ordered._parts():
            found[order[some]] = values[(start[some] // 8)[:, None] + np.asarray(columns)]
        return found

    def elements(self) -> np.ndarray:
        """Returns which elements each graph holds, bool [graphs, atomic numbers from 0]."""
        found = np.zeros((len(self), MAX_ATOMIC_NUMBER + 1), bool)
        widths = self._rows["width"]
        floats, integers = _bytes(self.sizes, widths.astype(np.int64))
        start = self._rows["end"] - _padded(floats + integers) + floats
        for some in self._parts():
            for width in np.unique(widths[some]).tolist():
                rows = some.start + np.flatnonzero(widths[some] == width)
                sites = self.sizes[rows, 0]
                first = start[rows] // width - np.cumsum(sites) + sites
                place = np.arange(sites.sum()) + np.repeat(first, sites)
                elements = self._records.values(f"<u{width}")[place]
                found[np.repeat(rows, sites), elements] = True
        return found

    def _parts(self) -> Iterator[slice]:
        """Yields some graphs after others, which are read before the next are asked for."""
        for start in range(0, len(self), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            yield some
            self._records.count(int(np.sum(self._lengths(some))))

    def _lengths(self, some: slice = slice(None)) -> np.ndarray:
        """Returns how many bytes the records of some graphs take."""
        return _padded(sum(_bytes(self._rows["sizes"][some], self._rows["width"][some])))

    def _consecutive(
        self, dtype: str, start: np.ndarray, fields: dict[str, str], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns some of consecutive fields of records, each of all records one after the other.

        Args:
            dtype: of their values.
            start: of the first field of each record, in bytes.
            fields: see _FLOATS.
            names: of those that are asked for; others are passed over.
        """
        records = self._records.values(dtype)
        lengths = self.sizes.T[[_KINDS.index(kind) for kind in fields.values()]]
        begin = start // records.itemsize + np.cumsum(lengths, axis=0) - lengths
        asked = [i for i, name in enumerate(fields) if name in names]
        if not asked:
            return {}
        lengths, begin = lengths[asked], begin[asked]
        ends = np.cumsum(lengths)
        place = np.arange(ends[-1]) + np.repeat(
            begin.ravel() - ends + lengths.ravel(), lengths.ravel()
        )
        values = np.split(records[place], ends[len(self) - 1 : -1 : len(self)])
        return dict(zip([list(fields)[i] for i in asked], values, strict=True))

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Returns where the crystals with these keys are, -1 for those that are not here."""
        own = self._rows["key"].copy()
        if not len(own):
            return np.full(len(keys), -1)
        order = np.argsort(own, kind="stable")
        place = np.searchsorted(own, keys, sorter=order, side="right") - 1
        row = order[np.maximum(place, 0)]
        return np.where(own[row] == keys, row, -1)

    def intact(self) -> np.ndarray:
        """Returns which graphs are what was written, bool [graphs]; it reads all of them."""
        records, found = self._records.bytes.data, np.empty(len(self), bool)
        for some in self._parts():
            rows, lengths = self._rows[some], self._lengths(some).tolist()
            text, ends = memoryview(rows.tobytes()), rows["end"].tolist()
            starts = range(0, len(text), _ROW.itemsize)
            found[some] = [
                _digest(text[start : start + _ABOUT], records[end - length : end])
                == text[start + _ABOUT : start + _ROW.itemsize]
                for start, end, length in zip(starts, ends, lengths, strict=True)
            ]
        return found


def descriptors_of(graphs: Sequence[CrystalGraph]) -> np.ndarray:
    """Returns the descriptors of graphs, float64 [graphs, columns]."""
    if isinstance(graphs, GraphStore):
        return graphs.descriptors()
    return np.stack([graph.descriptors for graph in graphs])


def elements_of(graphs: Sequence[CrystalGraph]) -> np.ndarray:
    """Returns which elements each graph holds, bool [graphs, atomic numbers from 0]."""
    if isinstance(graphs, GraphStore):
        return graphs.elements()
    found = np.zeros((len(graphs), MAX_ATOMIC_NUMBER + 1), bool)
    for row, graph in zip(found, graphs, strict=True):
        row[graph.atomic_number] = True
    return found


def store_path(folder: Path, settings: GraphSettings) -> Path:
    """Returns the place of the store of graphs with these settings."""
    return folder / hashlib.sha256(_describe(settings).encode()).hexdigest()[:16]


def open_store(path: Path) -> GraphStore:
    """Returns the graphs of a store, none if there is nothing at `path`.

    Rows of the index that name no part of the file are passed over; see `GraphStore.intact` for
    what the others name.

    Raises:
        StoreError: the system does not let it be read.
        UserError: it is something else than a store.
    """
    try:
        for file in (path / _INDEX, path / _GRAPHS):
            if file.exists():
                require_regular(file)
        # The index first: what it names is in the other file then, whoever writes meanwhile.
        rows = _map(path / _INDEX, _ROW)
        records = _Records(path / _GRAPHS)
    except OSError as error:
        raise StoreError(f"graphs in {path} cannot be read: {reason(error)}") from error
    sizes = rows["sizes"].astype(np.int64)
    known = (sizes >= 0).all(axis=1) & np.isin(rows["width"], (2, 4))
    lengths = _padded(sum(_bytes(sizes, rows["width"].astype(np.int64))))
    known &= (lengths <= rows["end"]) & (rows["end"] <= len(records.bytes))
    known &= rows["end"] % _ALIGNMENT == 0
    return GraphStore(records, rows if known.all() else rows[known])


def append(
    path: Path, settings: GraphSettings, keys: np.ndarray, graphs: Iterable[CrystalGraph]
) -> None:
    """Adds graphs to a store, which is made if there is none.

    Args:
        path: from `store_path` of these settings.
        settings: of the store.
        keys: of the contents of the crystals, [graphs].
        graphs: of the crystals, with these settings.

    Raises:
        StoreError: the files cannot be written.
    """
    encoded = [_encode(graph) for graph in graphs]
    rows = np.zeros(len(encoded), _ROW)
    rows["key"] = keys
    for row, (record, sizes, width) in zip(rows, encoded, strict=True):
        row["end"], row["sizes"], row["width"] = len(record), sizes, width
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _SETTINGS).exists():
            (path / _SETTINGS).write_text(_describe(settings), encoding="utf-8")
        _append(path, rows, [record for record, _, _ in encoded])
    except OSError as error:
        raise StoreError(f"graphs cannot be written to {path}: {reason(error)}") from error


def _append(path: Path, rows: np.ndarray, records: list[bytes]) -> None:
    """Adds records; rows["end"] holds their lengths and is changed to their ends."""
    with (path / _INDEX).open("ab") as index, (path / _GRAPHS).open("ab") as graphs:
        fcntl.flock(index, fcntl.LOCK_EX)  # until the file is closed, be it by a kill
        # Of a row that a killed process left half written the rest is cut off. Its records, and
        # whatever else the index does not name, stay.
        index.truncate(index.seek(0, os.SEEK_END) // _ROW.itemsize * _ROW.itemsize)
        length = graphs.seek(0, os.SEEK_END)
        start = _padded(length)
        _write(graphs, bytes(start - length) + b"".join(records))
        rows["end"] = start + np.cumsum(rows["end"])
        for row, record in zip(rows, records, strict=True):
            row["digest"] = np.frombuffer(_digest(row.tobytes()[:_ABOUT], record), "<u8")[0]
        _write(index, rows.tobytes())


def _digest(about: bytes | memoryview, record: bytes | memoryview) -> bytes:
    """Returns the digest of a record and of the row that tells about it, 8 bytes."""
    digest = hashlib.blake2b(about, digest_size=8)
    digest.update(record)
    return digest.digest()


def _write(file: BinaryIO, data: bytes) -> None:
    """Returns once the data are on the disk, so that what is written next comes after them."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _map(file: Path, dtype: np.dtype) -> np.ndarray:
    """Returns the complete rows of a file, mapped read-only; none if there is no file."""
    rows = file.stat().st_size // dtype.itemsize if file.exists() else 0
    # An empty file cannot be mapped. The plain view is indexed faster than a numpy.memmap.
    return np.asarray(np.memmap(file, dtype, "r", shape=rows)) if rows else np.empty(0, dtype)


def _describe(settings: GraphSettings) -> str:
    return json.dumps({"version": VERSION, **settings.to_dict()}, indent=1, sort_keys=True)


def _encode(graph: CrystalGraph) -> tuple[bytes, tuple[int, int, int], int]:
    """Returns a graph's record, sizes and width of whole numbers in bytes."""
    whole = np.concatenate([getattr(graph, name) for name in _INTEGERS])
    values = np.concatenate([graph.descriptors, *(getattr(graph, name) for name in _FLOATS)])
    width = 2 if whole.max() < 2**16 else 4
    record = values.astype("<f8").tobytes() + whole.astype(f"<u{width}").tobytes()
    sizes = len(graph.atomic_number), len(graph.bond_length), len(graph.angle_cosine)
    return record.ljust(_padded(len(record)), b"\0"), sizes, width


def _bytes(sizes: np.ndarray, width: Any) -> tuple[Any, Any]:
    """Returns how many bytes the floats and the whole numbers of records take."""
    return 8 * (COLUMNS + sizes @ _FLOATS_OF), width * (sizes @ _INTEGERS_OF)


def _padded(length: Any) -> Any:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _parts(
    values: np.ndarray, fields: dict[str, str], sizes: Sequence[int]
) -> dict[str, np.ndarray]:
    """Returns the consecutive parts of an array by the fields they hold."""
    rows = dict(zip(_KINDS, sizes, strict=True))
    ends = accumulate(rows[kind] for kind in fields.values())
    return {
        name: values[end - rows[kind] : end]
        for (name, kind), end in zip(fields.items(), ends, strict=True)
    }
