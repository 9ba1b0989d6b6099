"""Makes the tables in jaxmat/data/bundled from matminer 0.4.0's source distribution.

Usage: python tools/make_bundled_tables.py matminer-0.4.0.tar.gz
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar

SDIST_SHA256 = "1a6bdfb198b36d836bab4fbcdffb2dc4fda8a740c3dc08cbb21ea43b817fec86"
BUNDLED = Path(__file__).parent.parent / "jaxmat" / "data" / "bundled"


class Source(NamedTuple):
    """One CSV of the sdist and the table made of it."""

    csv_name: str
    structure_cell: str
    parse: Callable[[str], Structure]
    label_cell: str
    table_name: str
    label: str


def main() -> None:
    """Writes the tables and prints rows, sizes and checksums of the JSON inside."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sdist", type=Path, help="matminer-0.4.0.tar.gz")
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder to write to")
    arguments = parser.parse_args()
    if hashlib.sha256(arguments.sdist.read_bytes()).hexdigest() != SDIST_SHA256:
        parser.error(f"{arguments.sdist} is not the sdist of matminer 0.4.0")
    arguments.output.mkdir(parents=True, exist_ok=True)

    with tarfile.open(arguments.sdist) as archive:
        for source in SOURCES:
            text = read_member(archive, f"matminer/datasets/{source.csv_name}.csv")
            table, n_unreadable = make_table(text, source)
            content = json.dumps(table, separators=(",", ":")).encode()
            path = arguments.output / f"{source.table_name}.json.gz"
            write_gzip(path, content)
            print(
                f"{path.name}: {len(table['data'])} rows, {n_unreadable} left out, "
                f"{path.stat().st_size} bytes, JSON {hashlib.sha256(content).hexdigest()}"
            )
        licence = read_member(archive, "LICENSE")
    (arguments.output / "LICENSE.matminer").write_text(licence, encoding="utf-8")


def read_member(archive: tarfile.TarFile, name: str) -> str:
    """Returns the text of one file of the sdist."""
    member = archive.extractfile(f"matminer-0.4.0/{name}")
    if member is None:
        raise FileNotFoundError(name)
    return member.read().decode("utf-8")


def make_table(text: str, source: Source) -> tuple[dict[str, list[Any]], int]:
    """Returns the table in pandas "split" layout and the number of rows that cannot be parsed."""
    _, body = text.split("\n", 1)  # the first line is a comment with the reference
    names, *rows = csv.reader(io.StringIO(body))
    n_index = len(rows[0]) - len(names)  # two of the files have an index column without a name
    cells = [dict(zip(names, row[n_index:], strict=True)) for row in rows]

    index, data = [], []
    for number, cell in enumerate(cells):
        try:
            structure = compact_dict(source.parse(cell[source.structure_cell]))
            data.append([structure, float(cell[source.label_cell]), cell["material_id"]])
        except (KeyError, TypeError, ValueError, SyntaxError) as reason:
            print(f"{source.csv_name}, row {number}: {reason}")
            continue
        index.append(number)
    columns = ["structure", source.label, "material_id"]
    return {"index": index, "columns": columns, "data": data}, len(rows) - len(data)


def parse_poscar(cell: str) -> Structure:
    """Makes a structure from the text of a POSCAR."""
    return Poscar.from_str(cell).structure


def parse_literal(cell: str) -> Structure:
    """Makes a structure from a pymatgen dict printed as a Python literal."""
    content = ast.literal_eval(cell)
    elements = [site["species"][0]["element"] for site in content["sites"]]
    positions = [site["abc"] for site in content["sites"]]
    return Structure(content["lattice"]["matrix"], elements, positions)


def compact_dict(structure: Structure) -> dict[str, Any]:
    """Returns the smallest dict that `Structure.from_dict` reads."""
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "lattice": {"matrix": structure.lattice.matrix.tolist()},
        "sites": [
            {
                "species": [{"element": site.specie.symbol, "occu": 1}],
                "abc": site.frac_coords.tolist(),
            }
            for site in structure
        ],
    }


def write_gzip(path: Path, content: bytes) -> None:
    """Writes a gzip file that depends on its content alone: no file name, no time."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as stream:
        stream.write(content)


SOURCES = (
    Source("dielectric_constant", "poscar", parse_poscar, "poly_total", "dielectric", "poly_total"),
    Source("piezoelectric_tensor", "poscar", parse_poscar, "eij_max", "piezoelectric", "eij_max"),
    Source(
        "flla_2015",
        "structure",
        parse_literal,
        "formation_energy_per_atom",
        "formation_energy",
        "e_form",
    ),
)

if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
