"""A user's file or JSON dict becomes pymatgen structures: CIF, POSCAR, pymatgen JSON, XYZ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from pymatgen.core import Structure

from jaxmat.crystals.checks import MAX_SITES, too_many_sites
from jaxmat.data.extxyz import parse_frame, split_frames
from jaxmat.errors import UserError

SUFFIXES = (".cif", ".vasp", ".poscar", ".json", ".xyz", ".extxyz")
# Bytes of a file: a cell of `MAX_SITES` takes a few megabytes; trajectories hold many.
_MAX_BYTES = 64 * 2**20
_MAX_TRAJECTORY_BYTES = 2**30

_Item = TypeVar("_Item")


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
        if len(data["sites"]) > MAX_SITES:
            raise UserError(too_many_sites(len(data["sites"])))
        lattice = {key: data["lattice"][key] for key in ("matrix", "pbc") if key in data["lattice"]}
        sites = [{"species": site["species"], "abc": site["abc"]} for site in data["sites"]]
        return Structure.from_dict({"lattice": lattice, "sites": sites})
    except UserError:
        raise
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
        with suppress(OSError):  # such as a name that is too long
            if name and path.is_file():
                return path
    raise UserError(f"no file {name!r} (or {name!r} + {', '.join(SUFFIXES)}) in {folder}")


def is_structure_file(path: Path) -> bool:
    """Whether the name says one of the formats of `read_structure`."""
    return _parser(path) is not None


def read_structure(path: Path) -> Structure:
    """Reads the structure of a file that holds one; the name says the format.

    Args:
        path: *.cif, *.json (pymatgen), *.vasp, *.poscar, *.xyz, *.extxyz (extended XYZ), or a name
            with POSCAR or CONTCAR in it.

    Raises:
        UserError: another format, or contents that cannot be used.
    """
    parse = _parser(path)
    if parse is None:
        raise UserError(f"unknown format of {path}: use CIF, POSCAR, pymatgen JSON or extended XYZ")
    return _reading(path, lambda: parse(_read_text(path)))


def structure_readers(path: Path) -> list[Callable[[], Structure]]:
    """Returns what reads each structure of a file: one for each frame of extended XYZ, else one.

    Args:
        path: see `read_structure`; the readers raise UserError as it does.

    Raises:
        UserError: an extended XYZ that cannot be opened.
    """
    if _parser(path) is not _parse_xyz:
        return [partial(read_structure, path)]
    frames = _reading(path, lambda: split_frames(_read_text(path)))
    return [partial(_reading, path, partial(parse_frame, frame)) for frame in frames]


def _parser(path: Path) -> Callable[[str], Structure] | None:
    name = path.name.lower()
    if name.endswith(".cif"):
        return _parse_cif
    if name.endswith(".json"):
        return _parse_json
    if name.endswith((".xyz", ".extxyz")):
        return _parse_xyz
    if name.endswith((".vasp", ".poscar")) or "poscar" in name or "contcar" in name:
        return _parse_poscar
    return None


def _reading(path: Path, read: Callable[[], _Item]) -> _Item:
    """Returns the result of `read`; its errors become UserErrors that name the file."""
    try:
        return read()
    except UserError as reason:
        raise UserError(f"{path}: {reason}") from reason
    except Exception as reason:  # malformed input makes pymatgen raise errors of any type
        raise UserError(f"{path}: cannot be read ({type(reason).__name__}: {reason})") from reason


def _read_text(path: Path) -> str:
    most = _MAX_TRAJECTORY_BYTES if _parser(path) is _parse_xyz else _MAX_BYTES
    if path.stat().st_size > most:
        raise UserError(f"has {path.stat().st_size} bytes, more than {most}: this is no crystal")
    # Old CIFs hold authors' names in other encodings; what we need is plain ASCII.
    return path.read_text(encoding="utf-8-sig", errors="replace")


def _parse_cif(text: str) -> Structure:
    from pymatgen.io.cif import CifFile, CifParser  # see _parse_poscar

    parser = CifParser.from_str(text)
    for block in CifFile.from_str(text).data.values():
        listed = block.data.get("_atom_site_fract_x", [])
        copies = len(listed) * len(parser.get_symops(block))
        if copies > 2 * MAX_SITES:  # those on special positions coincide
            raise UserError(f"{too_many_sites(copies)} (symmetry operations times atoms)")
    try:
        structures = parser.parse_structures(primitive=False, on_error="ignore")
    except ValueError as reason:
        remarks: list[str] = parser.warnings  # type: ignore[attr-defined]
        raise UserError(" ".join("; ".join([str(reason), *remarks]).split())) from reason
    return _only(structures)


def _parse_xyz(text: str) -> Structure:
    return parse_frame(_only(split_frames(text)))


def _only(structures: Sequence[_Item]) -> _Item:
    if len(structures) > 1:
        raise UserError(f"holds {len(structures)} structures: put each into a file of its own")
    return structures[0]


def _parse_json(text: str) -> Structure:
    return structure_from_dict(json.loads(text))


def _parse_poscar(text: str) -> Structure:
    # Imported where it is needed: with the CIF reader it brings much of pymatgen and takes 80 MB.
    from pymatgen.io.vasp import Poscar

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Elements in POSCAR cannot be determined")
        poscar = Poscar.from_str(text, read_velocities=False)
    if not poscar.true_names:  # pymatgen would call the elements H, He, Li, ...
        raise UserError("the POSCAR does not name its elements: add a line of symbols (VASP 5)")
    return poscar.structure
