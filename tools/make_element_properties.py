"""Makes jaxmat/crystals/element_properties.txt from pymatgen's data on the elements.

Usage: python tools/make_element_properties.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from pymatgen.core import Element

TABLE = Path(__file__).parent.parent / "jaxmat" / "crystals" / "element_properties.txt"
LAST_ATOMIC_NUMBER = 103
MISSING = "-"


def main() -> None:
    """Writes the table and prints how many values each property lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=TABLE, help="file to write")
    text = make_table()
    parser.parse_args().output.write_text(text, encoding="utf-8")
    print("\n".join(line for line in text.splitlines() if line.startswith("#")))


def make_table() -> str:
    """Returns the text of the table: a header of comments, then a line for each element."""
    elements = [Element.from_Z(number) for number in range(1, LAST_ATOMIC_NUMBER + 1)]
    columns = {name: [read(element) for element in elements] for name, (_, read) in SOURCES.items()}
    header = [
        f"Properties of the elements as pymatgen {importlib.metadata.version('pymatgen-core')} has "
        "them (MIT licence; most of them from Wikipedia and WebElements).",
        "Made by tools/make_element_properties.py. period: 6 and 7 for lanthanoids and actinoids, "
        "too, and group 3 there.",
        "Valence electrons are those outside the noble-gas core, filled d and f shells included.",
        f"{MISSING}: pymatgen has no value. name, unit (1: a number without), elements without:",
    ]
    for name, values in columns.items():
        missing = [e.symbol for e, value in zip(elements, values, strict=True) if value is None]
        header.append(f"  {name}, {SOURCES[name][0]}: {' '.join(missing) or 'none'}")
    rows = zip(elements, *columns.values(), strict=True)
    lines = [f"# {line}" for line in header] + [" ".join(["symbol", *columns])]
    lines += [" ".join([element.symbol, *map(_text, values)]) for element, *values in rows]
    return "\n".join(lines) + "\n"


def _text(value: float | None) -> str:
    return MISSING if value is None else f"{value:.10g}"


def _data(name: str) -> Callable[[Element], float | None]:
    """Returns what reads an entry of pymatgen's data; text such as "no data" is not a number."""

    def read(element: Element) -> float | None:
        value = element.data.get(name)
        return float(value) if isinstance(value, int | float) and value == value else None

    return read


def _first_ionization_energy(element: Element) -> float | None:
    energies = element.data.get("Ionization energies")
    return float(energies[0]) if energies and energies[0] is not None else None


def _period(element: Element) -> float:
    # pymatgen sets lanthanoids and actinoids apart as rows 8 and 9.
    return float(element.row - 2 if element.row > 7 else element.row)


def _valence(shell: str) -> Callable[[Element], float | None]:
    """Returns what counts the electrons of a kind of shell outside the noble-gas core."""

    def count(element: Element) -> float:
        outside = element.electronic_structure.rpartition("]")[2]
        return float(sum(int(n) for n in re.findall(rf"\d{shell}(\d+)", outside)))

    return count


# Name → unit, and how it is read.
SOURCES: dict[str, tuple[str, Callable[[Element], float | None]]] = {
    "atomic_number": ("1", lambda element: float(element.Z)),
    "mendeleev_number": ("1", _data("Mendeleev no")),
    "atomic_mass": ("u", _data("Atomic mass")),
    "electronegativity": ("Pauling scale", _data("X")),
    "period": ("1", _period),
    "group": ("1", lambda element: float(element.group)),
    "atomic_radius": ("Å", _data("Atomic radius")),
    "atomic_radius_calculated": ("Å", _data("Atomic radius calculated")),
    "van_der_waals_radius": ("Å", _data("Van der waals radius")),
    "melting_point": ("K", _data("Melting point")),
    "ionization_energy": ("eV", _first_ionization_energy),
    "electron_affinity": ("eV", _data("Electron affinity")),
    "molar_volume": ("cm³/mol", _data("Molar volume")),
    "density": ("kg/m³", _data("Density of solid")),
    "bulk_modulus": ("GPa", _data("Bulk modulus")),
    "valence_s": ("1", _valence("s")),
    "valence_p": ("1", _valence("p")),
    "valence_d": ("1", _valence("d")),
    "valence_f": ("1", _valence("f")),
}

if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
