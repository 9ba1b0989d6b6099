"""Files that people have and that are not read: what they are, and two lines that convert them."""

from __future__ import annotations

from jaxmat.errors import UserError

_TO_JSON = '  frame.to_json("table.json", orient="split", default_handler=lambda s: s.as_dict())'
_AS_FRAMES = '  ase.io.write("table.xyz", crystals, format="extxyz")'
_PICKLE = (
    "a pickle, which may run any code when it is opened. If you trust it:\n"
    f"  frame = pandas.read_pickle(FILE)\n{_TO_JSON}"
)
# What files begin with, and what they are.
_BEGINNINGS = {
    b"PAR1": f"Parquet:\n  frame = pandas.read_parquet(FILE)\n{_TO_JSON}",
    b"ARROW1": f"Feather:\n  frame = pandas.read_feather(FILE)\n{_TO_JSON}",
    b"\x89HDF": f"HDF5:\n  frame = pandas.read_hdf(FILE)\n{_TO_JSON}",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"- of Ulm": f'a trajectory of ASE:\n  crystals = ase.io.read(FILE, ":")\n{_AS_FRAMES}',
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\x93NUMPY": "an array of numpy, which holds no crystals",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"%PDF": "a PDF",
}
_TAR, _TAR_MARK = 257, b"ustar"  # where it is said, and what


def refuse_foreign(head: bytes) -> None:
    """Refuses a file that is known and not read.

    Args:
        head: its first bytes.

    Raises:
        UserError: what it is, and how it can be read.
    """
    if head[_TAR : _TAR + len(_TAR_MARK)] == _TAR_MARK:
        raise UserError("recognised: a tar archive: unpack it, and give the folder")
    for mark, what in _BEGINNINGS.items():
        if head.startswith(mark):
            raise UserError(f"recognised: {what}")
