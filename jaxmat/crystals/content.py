"""A crystal as bare arrays: all that its graph depends on."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Lattice, Structure

# Of a crystal's bytes: the lattice, then what each site has, then along what it is periodic.
LATTICE, COORDINATES, PERIODIC = 72, 24, 3
# Crystals begin at multiples of this, where a float64 can be mapped.
_ALIGNMENT = 8


class Content(NamedTuple):
    """All of a crystal that its graph depends on.

    Attributes:
        atomic_number: uint8 [sites].
        fractional: coordinates, float64 [sites, 3].
        lattice: vectors in rows, Å, float64 [3, 3].
        periodic: bool [3].
    """

    atomic_number: np.ndarray
    fractional: np.ndarray
    lattice: np.ndarray
    periodic: np.ndarray

    @classmethod
    def of(cls, crystal: Content | Structure) -> Content:
        """Returns the content of a structure with one atom a site, or what is one already."""
        if isinstance(crystal, Content):
            return crystal
        return cls(
            np.array([site.specie.Z for site in crystal], dtype=np.uint8),
            crystal.frac_coords.reshape(-1, 3),
            crystal.lattice.matrix,
            np.array(crystal.pbc),
        )

    @classmethod
    def from_bytes(cls, data: np.ndarray) -> Content:
        """Returns the crystal of `to_bytes`, its arrays views of the bytes, uint8 [bytes]."""
        sites = (len(data) - LATTICE - PERIODIC) // (COORDINATES + 1)
        middle = LATTICE + COORDINATES * sites
        floats, rest = data[:middle].view("<f8"), data[middle:]
        coordinates = floats[9:].reshape(-1, 3)
        periodic = rest[sites : sites + PERIODIC].view(np.bool_)
        return cls(rest[:sites], coordinates, floats[:9].reshape(3, 3), periodic)

    def to_bytes(self) -> bytes:
        """Returns the arrays, one after another."""
        floats = (np.ascontiguousarray(part, "<f8") for part in (self.lattice, self.fractional))
        data = b"".join(part.tobytes() for part in (*floats, self.atomic_number, self.periodic))
        return data.ljust(int(content_bytes(len(self.atomic_number))), b"\0")

    def key(self) -> bytes:
        """Returns a hash of the exact numbers, 16 bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for values in self:
            digest.update(values.tobytes())
        return digest.digest()

    def structure(self) -> Structure:
        """Returns the crystal, without oxidation states and the like."""
        lattice = Lattice(self.lattice, pbc=tuple(self.periodic.tolist()))
        return Structure(lattice, self.atomic_number.tolist(), self.fractional)


def content_bytes(sites: Any) -> Any:
    """Returns how many bytes crystals with so many sites take; no sites, no bytes."""
    bare = LATTICE + PERIODIC + (COORDINATES + 1) * np.asarray(sites)
    return np.where(np.asarray(sites) > 0, -(-bare // _ALIGNMENT) * _ALIGNMENT, 0)
