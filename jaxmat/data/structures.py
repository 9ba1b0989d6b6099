"""A user's file or JSON dict becomes a pymatgen Structure: CIF, POSCAR or pymatgen JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from pymatgen.core import Structure
from pymatgen.io.cif import CifParser
from pymatgen.io.vasp import Poscar

from jaxmat.errors import UserError

SUFFIXES = (".cif", ".vasp", ".poscar", ".json")


def structure_from_dict(data: object) -> Structure:
    """Makes a structure from a pymatgen dict, as Matbench tables hold it.

    Only the lattice matrix and each site's species and fractional coordinates are passed on.
    pymatgen would decode site properties by importing whatever class the file names.

    Args:
        data: a dict with "@class": "Structure".

    Raises:
        UserError: it is not such a dict, or pymatgen cannot read it.
    """
    if not isinstance(data, dict) or data.get("@class") != "Structure":
        raise UserError("not a pymatgen structure: expected a dict with '@class': 'Structure'")
    try:
        lattice = {key: data["lattice"][key] for key in ("matrix", "pbc") if key in data["lattice"]}
        sites = [{"species": site["species"], "abc": site["abc"]} for site in data["sites"]]
        return Structure.from_dict({"lattice": lattice, "sites": sites})
    except Exception as reason:  # malformed input makes pymatgen raise errors of any type
        raise UserError(
            f"pymatgen cannot read the structure ({type(reason).__name__}: {reason})"
        ) from reason


def find_structure_file(folder: Path, name: str) -> Path:
    """Returns the file called `name` in `folder`, or `name` with one of `SUFFIXES` added.

    Raises:
        UserError: there is no such file.
    """
    for suffix in ("", *SUFFIXES):
        path = folder / (name + suffix)  # not with_suffix: an id may contain a dot
        if name and path.is_file():
            return path
    raise UserError(f"no file {name!r} (or {name!r} + {', '.join(SUFFIXES)}) in {folder}")


def read_structure(path: Path) -> Structure:
    """Reads one structure; the name says the format.

    Args:
        path: *.cif, *.json (pymatgen), *.vasp, *.poscar, or a name with POSCAR or CONTCAR in it.

    Raises:
        UserError: another format, or contents that cannot be used.
    """
    name = path.name.lower()
    if name.endswith(".cif"):
        parse = _parse_cif
    elif name.endswith(".json"):
        parse = _parse_json
    elif name.endswith((".vasp", ".poscar")) or "poscar" in name or "contcar" in name:
        parse = _parse_poscar
    else:
        raise UserError(f"unknown format of {path}: use CIF, POSCAR or pymatgen JSON")
    try:
        # Old CIFs hold authors' names in other encodings; what we need is plain ASCII.
        return parse(path.read_text(encoding="utf-8-sig", errors="replace"))
    except UserError as reason:
        raise UserError(f"{path}: {reason}") from reason
    except Exception as reason:  # malformed input makes pymatgen raise errors of any type
        raise UserError(f"{path}: cannot be read ({type(reason).__name__}: {reason})") from reason


def _parse_cif(text: str) -> Structure:
    parser = CifParser.from_str(text)
    try:
        structures = parser.parse_structures(primitive=False, on_error="ignore")
    except ValueError as reason:
        remarks: list[str] = parser.warnings  # type: ignore[attr-defined]
        raise UserError(" ".join("; ".join([str(reason), *remarks]).split())) from reason
    if len(structures) > 1:
        raise UserError(f"holds {len(structures)} structures: put each into a file of its own")
    return structures[0]


def _parse_json(text: str) -> Structure:
    return structure_from_dict(json.loads(text))


def _parse_poscar(text: str) -> Structure:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Elements in POSCAR cannot be determined")
        poscar = Poscar.from_str(text, read_velocities=False)
    if not poscar.true_names:  # pymatgen would call the elements H, He, Li, ...
        raise UserError("the POSCAR does not name its elements: add a line of symbols (VASP 5)")
    return poscar.structure
