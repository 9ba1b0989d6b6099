"""Structure files that look right and are not, or look wrong and are right."""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import lzma
import zipfile
from typing import Any

Expected = str | None


def more_texts(
    cif: str, poscar: str, xyz: str, crystal: dict[str, Any]
) -> dict[str, tuple[str | bytes, Expected]]:
    """Returns files by name; what follows a blank only tells them apart.

    Args:
        cif: of sodium chloride, like the others.
        poscar: likewise.
        xyz: extended XYZ.
        crystal: the dict of pymatgen.

    Returns:
        The content, and the formula that has to be read, "" where it has to be refused; None:
        either is right.
    """
    return {
        **_cifs(cif),
        **_poscars(poscar),
        **_frames(xyz),
        **_dicts(crystal),
        **_packed(cif, crystal),
    }


def _cifs(cif: str) -> dict[str, tuple[str | bytes, Expected]]:
    loop = "loop_\n _symmetry_equiv_pos_as_xyz\n"
    head = (
        "data_x\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n"
    )
    sites = (
        "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\n_atom_site_occupancy\n"
    )
    p1 = "_symmetry_space_group_name_H-M 'P 1'\n"

    def cell(**values: str) -> str:
        text = head
        for name, value in values.items():
            kind = "length" if name in "abc" else "angle"
            old = "4" if kind == "length" else "90"
            text = text.replace(f"_cell_{kind}_{name} {old}", f"_cell_{kind}_{name} {value}")
        return text + p1 + sites + "Na1 Na 0 0 0 1\n"

    return {
        "a.cif of code for an operation": (
            head + loop + '\'x,y,__import__("os").system("true")\'\n' + sites + "Na Na 0 0 0 1\n",
            "",
        ),
        "a.cif of an operation that scales": (
            head + loop + "'x,y,z'\n'2x,y,z'\n" + sites + "Na Na 0.1 0 0 1\n",
            "",
        ),
        "a.cif of an operation of a missing part": (
            head + loop + "'x,y'\n" + sites + "Na Na 0 0 0 1\n",
            "",
        ),
        "a.cif of a thousand powers": (
            head + loop + "'x**9**9**9,y,z'\n" + sites + "Na Na 0 0 0 1\n",
            "",
        ),
        "a.cif of 50,000 operations": (
            head + loop + "'x+1/7,y,z'\n" * 50_000 + sites + "Na Na 0 0 0 1\n",
            None,
        ),
        "a.cif of 100,000 sites": (
            head + p1 + sites + "".join(f"Na{i} Na 0.{i:06} 0 0 1\n" for i in range(100_000)),
            "",
        ),
        "a.cif of one site many times": (head + p1 + sites + "Na1 Na 0 0 0 1\n" * 50_000, None),
        "a.cif of a length of 1e-300": (cell(a="1e-300"), ""),
        "a.cif of a length of 1e300": (cell(a="1e300"), ""),
        "a.cif of a negative length": (cell(b="-4"), ""),
        "a.cif of an angle of 180": (cell(beta="180"), ""),
        "a.cif of angles that close no cell": (cell(alpha="120", beta="120", gamma="120.1"), ""),
        "a.cif of a length in other digits": (cell(a="４"), ""),
        "a.cif of a length with an uncertainty": (cell(a="4.0(12)"), "Na"),
        "a.cif of a broken uncertainty": (cell(a="4.0(1"), None),
        "a.cif of a minus from a text": (
            head + p1 + sites + "Na1 Na \u22120.5 0 0 1\n",
            "",
        ),
        "a.cif of a coordinate of 1e309": (head + p1 + sites + "Na1 Na 1e309 0 0 1\n", ""),
        "a.cif of an occupancy of -1": (head + p1 + sites + "Na1 Na 0 0 0 -1\n", ""),
        "a.cif of an occupancy of nan": (head + p1 + sites + "Na1 Na 0 0 0 nan\n", ""),
        "a.cif of an occupancy of 2": (head + p1 + sites + "Na1 Na 0 0 0 2\n", ""),
        "a.cif of a row too short": (head + p1 + sites + "Na1 Na 0 0 0\n", ""),
        "a.cif of an ion": (head + p1 + sites + "Na1 Na+ 0 0 0 1\nCl1 Cl1- .5 .5 .5 1\n", "NaCl"),
        "a.cif of deuterium": (head + p1 + sites + "Li1 Li 0 0 0 1\nD1 D .5 .5 .5 1\n", "LiH"),
        "a.cif of a dummy": (head + p1 + sites + "Na1 Na 0 0 0 1\nX1 X .5 .5 .5 1\n", ""),
        "a.cif of Windows": (cif.replace("\n", "\r\n"), "NaCl"),
        "a.cif of an old Mac": (cif.replace("\n", "\r"), None),
        "a.cif with a mark in front": ("\ufeff" + cif, "NaCl"),
        "a.cif in Latin-1": (f"# d\xfcnn\n{cif}".encode("latin-1"), "NaCl"),
        "a.cif with NUL in the middle": (cif.encode().replace(b"\n", b"\n\0", 3), ""),
        "a.cif cut off": (cif[: len(cif) * 3 // 4], None),
        "a.cif of two crystals": (cif + cif.replace("data_", "data_2"), None),
        "a.cif of a second block that is broken": (cif + "data_2\nloop_\n_a\n", None),
        "a.cif of a text without end": (cif + "\n_text\n;\nabc", ""),
        "a.cif of a tag twice": (cif.replace("_cell_length_b", "_cell_length_a"), ""),
        "a.cif of a loop without values": (cif + "\nloop_\n_a\n_b\n", None),
        "a.cif of tags of a megabyte": ("data_x\n_" + "a" * 10**6 + " 1\n" + cif, None),
        "a.cif of a comment of a megabyte": ("#" + "a" * 10**6 + "\n" + cif, "NaCl"),
        "a.cif with control characters": (cif.replace("Na0", "Na\x1b[31m"), None),
    }


def _poscars(poscar: str) -> dict[str, tuple[str | bytes, Expected]]:
    cell = "5 0 0\n0 5 0\n0 0 5\n"
    end = "Direct\n0 0 0\n0.5 0.5 0.5\n"

    def counts(line: str, species: str = "Na Cl") -> str:
        return f"x\n1\n{cell}{species}\n{line}\n{end}"

    return {
        "POSCAR of counts of 1.0": (counts("1.0 1.0"), None),
        "POSCAR of counts of 1e0": (counts("1e0 1e0"), None),
        "POSCAR of a count of 10^18": (counts("1000000000000000000 1"), ""),
        "POSCAR of a count more": (counts("1 1 1"), ""),
        "POSCAR of a count less": (counts("1"), ""),
        "POSCAR of a count in other digits": (counts("１ １"), ""),
        "POSCAR of no species": (f"x\n1\n{cell}1 1\n{end}", ""),
        "POSCAR of a species Qq": (counts("1 1", "Na Qq"), ""),
        "POSCAR of potentials": (counts("1 1", "Na_pv Cl"), "NaCl"),
        "POSCAR of a volume": (f"x\n-125\n{cell}Na Cl\n1 1\n{end}", "NaCl"),
        "POSCAR of three scales, one 0": (f"x\n1 1 0\n{cell}Na Cl\n1 1\n{end}", ""),
        "POSCAR of two scales": (f"x\n1 1\n{cell}Na Cl\n1 1\n{end}", None),
        "POSCAR of a scale of 1e300": (f"x\n1e300\n{cell}Na Cl\n1 1\n{end}", ""),
        "POSCAR of a left-handed cell": (
            f"x\n1\n0 5 0\n5 0 0\n0 0 5\nNa Cl\n1 1\n{end}",
            "NaCl",
        ),
        "POSCAR of a comment of a megabyte": ("x" * 10**6 + poscar[poscar.index("\n") :], None),
        "POSCAR of Windows": (poscar.replace("\n", "\r\n"), "NaCl"),
        "POSCAR of tabs": (poscar.replace(" ", "\t"), "NaCl"),
        "POSCAR with fixed atoms": (
            f"x\n1\n{cell}Na Cl\n1 1\nSelective dynamics\nDirect\n0 0 0 T T F\n.5 .5 .5 F F F\n",
            "NaCl",
        ),
        "POSCAR with velocities": (counts("1 1") + "\n" + "0 0 0\n" * 2, "NaCl"),
        "POSCAR with half the atoms": (counts("1 1").replace("0.5 0.5 0.5\n", ""), ""),
        "POSCAR with a word for a number": (counts("1 1").replace("0.5 0.5", "0.5 half"), ""),
        "POSCAR of atoms on each other": (counts("1 1").replace("0.5 0.5 0.5", "0 0 0"), ""),
    }


def _frames(xyz: str) -> dict[str, tuple[str | bytes, Expected]]:
    lattice = 'Lattice="5 0 0 0 5 0 0 0 5"'

    def one(header: str, atom: str = "Na 0 0 0", count: str = "1") -> str:
        return f"{count}\n{header}\n{atom}\n"

    return {
        "a.xyz of 10^9 columns": (one(f"{lattice} Properties=species:S:1000000000:pos:R:3"), ""),
        "a.xyz of -1 columns": (one(f"{lattice} Properties=species:S:-1:pos:R:3"), ""),
        "a.xyz of properties without positions": (one(f"{lattice} Properties=species:S:1"), ""),
        "a.xyz of a flat lattice": (one('Lattice="5 0 0 5 0 0 0 0 5"'), ""),
        "a.xyz of a lattice of eight": (one('Lattice="5 0 0 0 5 0 0 0"'), ""),
        "a.xyz of a lattice of words": (one('Lattice="a b c d e f g h i"'), ""),
        "a.xyz of a lattice of other digits": (one('Lattice="５ 0 0 0 5 0 0 0 5"'), ""),
        "a.xyz of a number 200": (one(f"{lattice} Properties=Z:I:1:pos:R:3", "200 0 0 0"), ""),
        "a.xyz of a number 0": (one(f"{lattice} Properties=Z:I:1:pos:R:3", "0 0 0 0"), ""),
        "a.xyz of a number 11": (one(f"{lattice} Properties=Z:I:1:pos:R:3", "11 0 0 0"), None),
        "a.xyz of pbc perhaps": (one(f'{lattice} pbc="perhaps T T"'), ""),
        "a.xyz of a count of 1.0": (one(lattice, count="1.0"), ""),
        "a.xyz of a count of other digits": (one(lattice, count="１"), ""),
        "a.xyz of a count of 1_0": (one(lattice, count="1_0"), ""),
        "a.xyz with quotes without end": (one(lattice.rstrip('"')), ""),
        "a.xyz with a key of a megabyte": (one(f"{lattice} {'a' * 10**6}=1"), None),
        "a.xyz with 200,000 keys": (one(lattice + " a=1" * 200_000), None),
        "a.xyz of Windows": (xyz.replace("\n", "\r\n"), "NaCl"),
        "a.xyz with a frame cut off": (xyz + "2\nLatt", None),
        "a.xyz with nonsense behind": (xyz + "and so on\n", None),
        "a.xyz with a row too short": (one(lattice, "Na 0 0"), ""),
        "a.xyz of 10,000 frames of nothing": ("0\n\n" * 10_000, ""),
    }


def _dicts(crystal: dict[str, Any]) -> dict[str, tuple[str | bytes, Expected]]:
    def changed(*place: Any, value: Any) -> str:
        content = copy.deepcopy(crystal)
        at: Any = content
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = value
        return json.dumps(content)

    jarvis = {
        "lattice_mat": [[5, 0, 0], [0, 5, 0], [0, 0, 5]],
        "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "elements": ["Na", "Cl"],
        "cartesian": False,
    }
    species = ("sites", 0, "species")
    return {
        "a.json without a lattice": (changed("lattice", value=None), ""),
        "a.json of a lattice of words": (changed("lattice", "matrix", value="abc"), ""),
        "a.json of two rows": (changed("lattice", "matrix", value=[[5, 0, 0], [0, 5, 0]]), ""),
        "a.json of a lattice of 1e308": (changed("lattice", "matrix", value=[[1e308] * 3] * 3), ""),
        "a.json without sites": (changed("sites", value=[]), ""),
        "a.json of sites that are text": (changed("sites", value="Na Cl"), ""),
        "a.json of a site of nothing": (changed("sites", 0, value=None), ""),
        "a.json of no species": (changed(*species, value=[]), ""),
        "a.json of a species of a list": (changed(*species, value=[["Na", 1]]), ""),
        "a.json of a species Qq": (changed(*species, value=[{"element": "Qq", "occu": 1}]), ""),
        "a.json of an element of NUL": (
            changed(*species, value=[{"element": "Na\0", "occu": 1}]),
            "",
        ),
        "a.json of an occupancy of text": (
            changed(*species, value=[{"element": "Na", "occu": "1_0"}]),
            "",
        ),
        "a.json of an occupancy of true": (
            changed(*species, value=[{"element": "Na", "occu": True}]),
            None,
        ),
        "a.json of an occupancy of 10^400": (
            changed(*species, value=[{"element": "Na", "occu": 1}]).replace(
                '"occu": 1}', '"occu": 1' + "0" * 400 + "}", 1
            ),
            "",
        ),
        "a.json of coordinates of text": (changed("sites", 0, "abc", value=["0", "0", "x"]), ""),
        "a.json of two coordinates": (changed("sites", 0, "abc", value=[0, 0]), ""),
        "a.json of an integer of 10,000 digits": ('{"a": ' + "9" * 10_000 + "}", ""),
        "a.json of JARVIS": (json.dumps(jarvis), "NaCl"),
        "a.json of JARVIS with an atom less": (json.dumps(jarvis | {"elements": ["Na"]}), ""),
        "a.json of JARVIS with words": (json.dumps(jarvis | {"coords": "x"}), ""),
        "a.json of JARVIS with a flag of text": (json.dumps(jarvis | {"cartesian": "no"}), None),
        "a.json with a mark in front": ("\ufeff" + json.dumps(crystal), "NaCl"),
        "a.json in UTF-16": (json.dumps(crystal).encode("utf-16"), "NaCl"),
        "a.json with a key twice": (
            json.dumps(crystal)[:-1] + ', "sites": []}',
            "",
        ),
        "a.json of a list of crystals": (json.dumps([crystal, crystal]), None),
        "a.json of 100,000 objects": (json.dumps([{}] * 100_000), ""),
        "a.json of a text of 5 MB": (json.dumps("x" * 5_000_000), ""),
    }


def _packed(cif: str, crystal: dict[str, Any]) -> dict[str, tuple[str | bytes, Expected]]:
    def archive(**files: str) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name.replace("_", "."), content)
        return stream.getvalue()

    text = json.dumps(crystal)
    return {
        "a.cif.gz": (gzip.compress(cif.encode()), "NaCl"),
        "a.cif.gz twice": (gzip.compress(gzip.compress(cif.encode())), ""),
        "a.cif.gz of two parts": (gzip.compress(cif[:90].encode()) * 1, None),
        "a.cif.gz with a tail": (gzip.compress(cif.encode()) + b"tail", None),
        "a.cif.gz of zeros": (gzip.compress(bytes(300 * 2**20), 1), ""),
        "a.json.gz of blanks": (gzip.compress(b" " * (300 * 2**20), 1), ""),
        "a.json.gz of one text": (gzip.compress(b'"' + b"x" * (200 * 2**20) + b'"', 1), ""),
        "a.cif that is a gzip": (gzip.compress(cif.encode()), None),
        "a.cif.bz2": (bz2.compress(cif.encode()), "NaCl"),
        "a.cif.bz2 of zeros": (bz2.compress(bytes(300 * 2**20)), ""),
        "a.json.xz of blanks": (lzma.compress(b" " * (300 * 2**20), preset=0), ""),
        "a.json.zip of one": (archive(a_json=text), None),
        "a.json.zip of two": (archive(a_json=text, b_json=text), None),
        "a.json.zip of nothing": (archive(), ""),
        "a.json.zip of zeros": (archive(a_json="0" * (200 * 2**20)), ""),
        "a.json.zip cut": (archive(a_json=text)[:-30], ""),
    }
