"""Very many crystals as bytes, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from pymatgen.core import Structure

from jaxmat.crystals.content import COORDINATES, LATTICE, PERIODIC, Content, content_bytes


class Contents(Sequence[Content]):
    """Crystals as bytes, in memory or mapped from a file; arrays are made when they are asked for.

    Attributes:
        sites: of each crystal, int64 [crystals]; 0: there is none in this place.
    """

    def __init__(
        self,
        data: np.ndarray,
        starts: np.ndarray,
        sites: np.ndarray,
        keys: np.ndarray | None = None,
    ) -> None:
        """Use `of` or `consecutive`.

        Args:
            data: what `Content.to_bytes` gave, uint8.
            starts: of each crystal, int64 [crystals].
            sites: int64 [crystals].
            keys: see `keys`, where they are known.
        """
        self._data, self._starts, self.sites, self._keys = data, starts, sites, keys
        self._ends = starts + content_bytes(sites)

    @classmethod
    def of(cls, crystals: Iterable[Content | Structure]) -> Contents:
        """Keeps crystals in memory, some hundred bytes each."""
        found = [Content.of(one) for one in crystals]
        sites = np.array([len(one.atomic_number) for one in found], np.int64)
        data = np.frombuffer(b"".join(one.to_bytes() for one in found), np.uint8)
        return cls.consecutive(data, sites)

    @classmethod
    def consecutive(
        cls, data: np.ndarray, sites: np.ndarray, keys: np.ndarray | None = None
    ) -> Contents:
        """Returns the crystals that lie one after another; those without sites take no bytes."""
        ends = np.cumsum(content_bytes(sites))
        return cls(data, ends - content_bytes(sites), sites, keys)

    def __len__(self) -> int:
        return len(self.sites)

    @overload
    def __getitem__(self, index: int) -> Content: ...
    @overload
    def __getitem__(self, index: slice) -> Contents: ...
    def __getitem__(self, index: int | slice) -> Content | Contents:
        """Returns a crystal, or some."""
        if isinstance(index, slice):
            return self._some(index)
        return Content.from_bytes(self._data[self._starts[index] : self._ends[index]])

    def take(self, indices: Sequence[int] | np.ndarray) -> Contents:
        """Returns some of the crystals, in this order."""
        return self._some(np.asarray(indices, np.int64))

    def _some(self, rows: np.ndarray | slice) -> Contents:
        keys = None if self._keys is None else self._keys[rows]
        return Contents(self._data, self._starts[rows], self.sites[rows], keys)

    def to_bytes(self) -> bytes:
        """Returns the bytes of all crystals, for `consecutive`."""
        parts = zip(self._starts.tolist(), self._ends.tolist(), strict=True)
        return b"".join(self._data[start:end].tobytes() for start, end in parts)

    def keys(self) -> np.ndarray:
        """Returns the hash of each crystal, see `Content.key`, S16 [crystals]."""
        if self._keys is not None:
            return self._keys
        data, keys = self._data.data, []
        for start, sites in zip(self._starts.tolist(), self.sites.tolist(), strict=True):
            coordinates = start + LATTICE
            numbers = coordinates + COORDINATES * sites
            periodic = numbers + sites
            # Without arrays, which take longer than the hash.
            digest = hashlib.blake2b(data[numbers:periodic], digest_size=16)
            digest.update(data[coordinates:numbers])
            digest.update(data[start:coordinates])
            digest.update(data[periodic : periodic + PERIODIC])
            keys.append(digest.digest())
        return np.array(keys, dtype="S16")

    def atomic_numbers(self) -> np.ndarray:
        """Returns those of all sites, crystal after crystal, uint8 [sites of all]."""
        before = np.cumsum(self.sites) - self.sites
        begin = self._starts + LATTICE + COORDINATES * self.sites
        return self._data[np.arange(self.sites.sum()) + np.repeat(begin - before, self.sites)]

    def numbers(self) -> np.ndarray:
        """Returns the lattice and the coordinates of each crystal, crystal after crystal.

        Returns:
            float64 [9 + 3 · sites of each crystal].
        """
        counts = 9 + 3 * self.sites
        before = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) + np.repeat(self._starts // 8 - before, counts)
        return self._data.view("<f8")[place]

    def volumes(self) -> np.ndarray:
        """Returns the volume of each cell, Å³, [crystals]."""
        values = self._data.view("<f8")[(self._starts // 8)[:, None] + np.arange(9)]
        return np.abs(np.linalg.det(values.reshape(-1, 3, 3)))

    def compositions(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Returns for each crystal its elements and how many atoms of each there are, reduced.

        The elements are atomic numbers in ascending order; 1:2 and 2:4 atoms are both (1, 2).
        """
        elements, counts, bounds = (values.tolist() for values in self._elements())
        return [
            (tuple(elements[start:end]), tuple(counts[start:end]))
            for start, end in zip(bounds, bounds[1:], strict=False)
        ]

    def composition_groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns which crystals have the same composition, reduced.

        Returns:
            The number of each crystal's composition, which are numbered in the order in which they
            first occur, and how many elements each crystal holds; int64 [crystals] each.
        """
        elements, counts, bounds = self._elements()
        number = np.diff(bounds)
        row = np.repeat(np.arange(len(self)), number)
        padded = np.zeros((len(self), number.max(initial=1)), np.int64)
        padded[row, np.arange(len(row)) - bounds[row]] = counts * 256 + elements
        order = np.lexsort(padded.T)
        new = (np.diff(padded[order], axis=0) != 0).any(axis=1)
        group = np.empty(len(self), np.int64)
        group[order] = np.concatenate([np.zeros(min(len(self), 1), np.int64), np.cumsum(new)])
        _, first = np.unique(group, return_index=True)
        rank = np.empty_like(first)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[group], number

    def _elements(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the elements of each crystal, ascending, and how many atoms of each, reduced.

        Returns:
            Atomic numbers and counts, crystal after crystal, and where each crystal begins in them,
            the end of the last one added.
        """
        crystal = np.repeat(np.arange(len(self)), self.sites)
        found, counts = np.unique(crystal * 256 + self.atomic_numbers(), return_counts=True)
        bounds = np.searchsorted(found // 256, np.arange(len(self) + 1))
        some = np.flatnonzero(np.diff(bounds))
        divisors = np.ones(len(self), np.int64)
        if len(some):
            divisors[some] = np.gcd.reduceat(counts, bounds[some])
        return found % 256, counts // divisors[found // 256], bounds


class Crystals(Sequence[Structure]):
    """Structures that are made when they are asked for."""

    def __init__(self, contents: Contents) -> None:
        """Makes none yet."""
        self._contents = contents

    def __len__(self) -> int:
        return len(self._contents)

    @overload
    def __getitem__(self, index: int) -> Structure: ...
    @overload
    def __getitem__(self, index: slice) -> Crystals: ...
    def __getitem__(self, index: int | slice) -> Structure | Crystals:
        """Returns a crystal, or some."""
        if isinstance(index, slice):
            return Crystals(self._contents[index])
        return self._contents[index].structure()
