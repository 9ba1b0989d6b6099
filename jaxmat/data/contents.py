"""Very many crystals as bytes, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
import math
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

    def __init__(self, data: np.ndarray, starts: np.ndarray, sites: np.ndarray) -> None:
        """Use `of` or `consecutive`.

        Args:
            data: what `Content.to_bytes` gave, uint8.
            starts: of each crystal, int64 [crystals].
            sites: int64 [crystals].
        """
        self._data, self._starts, self.sites = data, starts, sites
        self._ends = starts + content_bytes(sites)

    @classmethod
    def of(cls, crystals: Iterable[Content | Structure]) -> Contents:
        """Keeps crystals in memory, some hundred bytes each."""
        found = [Content.of(one) for one in crystals]
        sites = np.array([len(one.atomic_number) for one in found], np.int64)
        data = np.frombuffer(b"".join(one.to_bytes() for one in found), np.uint8)
        return cls.consecutive(data, sites)

    @classmethod
    def consecutive(cls, data: np.ndarray, sites: np.ndarray) -> Contents:
        """Returns the crystals that lie one after another; those without sites take no bytes."""
        ends = np.cumsum(content_bytes(sites))
        return cls(data, ends - content_bytes(sites), sites)

    def __len__(self) -> int:
        return len(self.sites)

    @overload
    def __getitem__(self, index: int) -> Content: ...
    @overload
    def __getitem__(self, index: slice) -> Contents: ...
    def __getitem__(self, index: int | slice) -> Content | Contents:
        """Returns a crystal, or some."""
        if isinstance(index, slice):
            return Contents(self._data, self._starts[index], self.sites[index])
        return Content.from_bytes(self._data[self._starts[index] : self._ends[index]])

    def take(self, indices: Sequence[int] | np.ndarray) -> Contents:
        """Returns some of the crystals, in this order."""
        rows = np.asarray(indices, np.int64)
        return Contents(self._data, self._starts[rows], self.sites[rows])

    def to_bytes(self) -> bytes:
        """Returns the bytes of all crystals, for `consecutive`."""
        parts = zip(self._starts.tolist(), self._ends.tolist(), strict=True)
        return b"".join(self._data[start:end].tobytes() for start, end in parts)

    def keys(self) -> np.ndarray:
        """Returns the hash of each crystal, see `Content.key`, S16 [crystals]."""
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
        crystal = np.repeat(np.arange(len(self)), self.sites)
        found, counts = np.unique(crystal * 256 + self.atomic_numbers(), return_counts=True)
        bounds = np.searchsorted(found // 256, np.arange(len(self) + 1)).tolist()
        elements, counts = (found % 256).tolist(), counts.tolist()
        return [
            (tuple(elements[start:end]), _reduced(counts[start:end]))
            for start, end in zip(bounds, bounds[1:], strict=False)
        ]


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


def _reduced(counts: list[int]) -> tuple[int, ...]:
    divisor = math.gcd(*counts)
    return tuple(count // divisor for count in counts)
