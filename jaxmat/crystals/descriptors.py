"""Descriptors of a crystal: numbers with a name and a unit that need no training.

Statistics of element properties over the atoms (Ward et al., npj Comput. Mater. 2, 16028, 2016)
and of the composition, then what volume, neighbours and bonds say. They depend on the weighted
graph and on the volume of the cell alone, and so as little as these do on how a crystal is written.
They are finite for every crystal. Of quantities that are positive the logarithm is taken: what
counts is by which factor two crystals differ.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from jaxmat.crystals.elements import element_properties

# Properties of which the logarithm is taken.
_LOGARITHMIC = {
    *("atomic_number", "atomic_mass", "atomic_radius", "atomic_radius_calculated"),
    *("van_der_waals_radius", "melting_point", "ionization_energy", "molar_volume"),
    *("density", "bulk_modulus"),
}
# Å; over this length beyond the nearest neighbour the weight of a bond falls by e.
_DECAY = 0.3
# Å³ g/cm³ to the atomic mass unit: 1 u = 1.66053906660e-24 g (CODATA 2018).
_GRAMS_PER_CM3 = 1.66053906660
# Columns, known without reading the table of the elements; tested.
COLUMNS = 105
_STATISTICS = ("mean", "mean_deviation", "maximum", "minimum", "range")


class Descriptor(NamedTuple):
    """What a column is.

    Attributes:
        name: of the column.
        unit: "1" for a number without.
    """

    name: str
    unit: str


class SiteClasses(NamedTuple):
    """The site classes of many crystals.

    Attributes:
        crystal: which one a class belongs to, in ascending order, each with one at least, [sites].
        atomic_number: [sites].
        number: sites of the class, [sites].
    """

    crystal: np.ndarray
    atomic_number: np.ndarray
    number: np.ndarray


class BondClasses(NamedTuple):
    """Their bond classes.

    Attributes:
        sender, receiver: site classes, [bonds].
        length: Å, [bonds].
        multiplicity: bonds of the class that end at one site of its receiver, [bonds].
    """

    sender: np.ndarray
    receiver: np.ndarray
    length: np.ndarray
    multiplicity: np.ndarray


@functools.cache
def descriptor_columns() -> tuple[Descriptor, ...]:
    """Returns what the columns of `describe_crystals` are, in order."""
    return (
        *(
            Descriptor(f"{statistic}_{name}", unit)
            for statistic in _STATISTICS
            for name, unit in _properties()[0]
        ),
        Descriptor("elements", "1"),
        Descriptor("composition_entropy", "1"),
        Descriptor("composition_sum_of_squares", "1"),
        Descriptor("log_volume_per_atom", "ln(Å³)"),
        Descriptor("log_mass_density", "ln(g/cm³)"),
        Descriptor("log_mean_nearest_distance", "ln(Å)"),
        Descriptor("log_least_nearest_distance", "ln(Å)"),
        Descriptor("log_greatest_nearest_distance", "ln(Å)"),
        Descriptor("log_mean_bond_length", "ln(Å)"),
        Descriptor("mean_bond_electronegativity_difference", "Pauling scale"),
    )


def descriptor_blocks() -> tuple[int, int]:
    """Returns how many of the first columns are about the composition, and how many are left."""
    columns = [column.name for column in descriptor_columns()]
    composition = columns.index("log_volume_per_atom")
    return composition, len(columns) - composition


@functools.cache
def _properties() -> tuple[list[Descriptor], np.ndarray]:
    """Returns the element properties, some as logarithms, and their values, [104, properties]."""
    names, units, _, filled = element_properties()
    values, about = filled.copy(), []
    for i, (name, unit) in enumerate(zip(names, units, strict=True)):
        if name in _LOGARITHMIC:
            values[:, i] = np.log(values[:, i])
            name, unit = f"log_{name}", f"ln({unit})" if unit != "1" else "1"
        about.append(Descriptor(name, unit))
    return about, values


def describe_crystals(
    sites: SiteClasses, bonds: BondClasses, volume: np.ndarray, alone: float
) -> np.ndarray:
    """Returns the descriptors of crystals, float64 [crystals, columns]; see `descriptor_columns`.

    A mean is over atoms. The mean deviation is that from the mean. The nearest distance is that of
    the nearest neighbour of each atom. A bond weighs exp(-(d - nearest distance) / 0.3 Å) in the
    means over bonds.

    Args:
        sites: site classes.
        bonds: bond classes.
        volume: of the cells that hold the counted sites, Å³, [crystals].
        alone: Å; taken for the distance of an atom that has no neighbour.
    """
    first = np.searchsorted(sites.crystal, np.arange(len(volume)))
    atoms = np.add.reduceat(sites.number, first).astype(float)
    share = sites.number / atoms[sites.crystal]
    values = _properties()[1][sites.atomic_number]
    mean = np.add.reduceat(values * share[:, None], first)
    deviation = np.add.reduceat(np.abs(values - mean[sites.crystal]) * share[:, None], first)
    maximum, minimum = np.maximum.reduceat(values, first), np.minimum.reduceat(values, first)
    properties = element_properties()
    masses = properties.filled[:, properties.names.index("atomic_mass")]
    mass = np.add.reduceat(masses[sites.atomic_number] * share, first)
    per_atom = volume / atoms
    return np.column_stack(
        [
            *(mean, deviation, maximum, minimum, maximum - minimum),
            *_composition(sites, atoms),
            *(np.log(per_atom), np.log(_GRAMS_PER_CM3 * mass / per_atom)),
            *_neighborhoods(sites, bonds, share, first, alone),
        ]
    )


def _neighborhoods(
    sites: SiteClasses, bonds: BondClasses, share: np.ndarray, first: np.ndarray, alone: float
) -> list[np.ndarray]:
    """Returns nearest distances (mean, least, greatest) and means over bonds, [crystals] each."""
    nearest = np.full(len(sites.crystal), np.inf)
    np.minimum.at(nearest, bonds.receiver, bonds.length)
    weight = np.exp((nearest[bonds.receiver] - bonds.length) / _DECAY)
    weight *= bonds.multiplicity * sites.number[bonds.receiver]
    crystal = sites.crystal[bonds.receiver]
    total = np.bincount(crystal, weight, len(first))
    properties = element_properties()
    electronegativity = properties.filled[:, properties.names.index("electronegativity")]
    at_site = electronegativity[sites.atomic_number]
    difference = np.abs(at_site[bonds.sender] - at_site[bonds.receiver])
    bonded = total > 0
    some = np.where(bonded, total, 1.0)
    length = np.bincount(crystal, weight * bonds.length, len(first)) / some
    nearest[np.isinf(nearest)] = alone
    return [
        np.log(np.add.reduceat(nearest * share, first)),
        np.log(np.minimum.reduceat(nearest, first)),
        np.log(np.maximum.reduceat(nearest, first)),
        np.log(np.where(bonded, length, alone)),
        np.bincount(crystal, weight * difference, len(first)) / some,
    ]


def _composition(sites: SiteClasses, atoms: np.ndarray) -> list[np.ndarray]:
    """Returns number of elements, entropy and sum of squares of the shares, [crystals] each."""
    key = sites.crystal.astype(np.int64) * (int(sites.atomic_number.max()) + 1)
    found, inverse = np.unique(key + sites.atomic_number, return_inverse=True)
    crystal = found // (int(sites.atomic_number.max()) + 1)
    share = np.bincount(inverse, sites.number) / atoms[crystal]
    return [
        np.bincount(crystal, minlength=len(atoms)).astype(float),
        np.bincount(crystal, -share * np.log(share), len(atoms)),
        np.bincount(crystal, share**2, len(atoms)),
    ]
