"""State dicts on disk: *.pt, *.npz and *.safetensors. Nothing that a file contains is run."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from jaxmat.errors import UserError, listed
from jaxmat.runtime.files import reason, require_regular, shown, whole_file

SUFFIXES = (".pt", ".npz", ".safetensors")
# Bytes that a packed file may unpack to: so many, or so many times its own.
_MOST_UNPACKED, _MOST_RATIO = 256 * 2**20, 8
# Ways to name what is run, and the names that tensors need.
_NAMING = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
_OF_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\.(?!(Unt|T)yped)\w+Storage|"
    r"torch\._utils\._rebuild_(tensor_v2|parameter)"
)
_MEND_PT = (
    "If you trust its source, load it where it was made and save the state dict alone: "
    'torch.save({"model": model.state_dict()}, FILE).'
)
# The pickled number that files of PyTorch before 1.6 begin with, which are no archives.
_OLD_PT = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MODEL = "model"  # the published *.pt files have the state dict under this key


def read_state_dict(file: Path) -> dict[str, np.ndarray]:
    """Reads a state dict, name → array.

    Args:
        file: *.pt (a state dict, or a dict that has one as "model"), *.npz or *.safetensors.

    Raises:
        UserError: another kind of file, missing, damaged, not only tensors, or in need of code.
    """
    readers = {".pt": _read_pt, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers[_suffix(file)]
    if file.suffix == ".pt":
        _torch()  # whether it is there at all is told first
    require_regular(file)
    try:
        return reader(file)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{file} cannot be read: it asks for more memory than there is") from error
    except Exception as error:  # malformed files make numpy, zipfile and torch raise all kinds
        raise UserError(
            f"{file} cannot be read: it is damaged, or not a {file.suffix} file"
        ) from error


def write_state_dict(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict; the suffix of the file says how, see `read_state_dict`.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    writers = {".pt": _write_pt, ".npz": _write_npz, ".safetensors": _write_safetensors}
    writer = writers[_suffix(file)]
    try:
        with whole_file(file) as unfinished:
            writer(unfinished, arrays)
    except OSError as error:
        raise UserError(f"Cannot write {file}: {reason(error)}") from error


def _suffix(file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"{file} is not of a kind that is known: {', '.join(SUFFIXES)}. Give what torch.save "
            "has written a name that ends with .pt."
        )
    return file.suffix


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    _check_archive(file)
    # Given a path, numpy leaves the file of a broken archive open.
    with file.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
        arrays = dict(archive)
    if others := [name for name, x in arrays.items() if not isinstance(x, np.ndarray)]:
        raise UserError(f"{file} holds more than arrays:\n{listed(others)}")
    return arrays


def _write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(file, allow_pickle=False, **arrays)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return load(file.read_bytes())
    except KeyError as error:
        raise UserError(f"{file} has entries of dtype {error}, unknown to numpy.") from error


def _write_safetensors(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # safetensors writes the buffer of an array as it lies in memory, whatever its strides.
    file.write_bytes(save({name: np.asarray(x, order="C") for name, x in arrays.items()}))


def _read_pt(file: Path) -> dict[str, np.ndarray]:
    torch = _torch()
    with file.open("rb") as stream:
        if stream.read(len(_OLD_PT)) == _OLD_PT:
            raise UserError(
                f"{file} is refused: it has the format of PyTorch before 1.6, of which cannot be "
                f"told what would be run to read it. {_MEND_PT}"
            )
    try:
        unpacked = _check_archive(file)
        _check_names(file)
        with warnings.catch_warnings():  # of what is refused below, or of no matter
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{file} is refused: to read it, code that it names would have to be run. {_MEND_PT}"
        ) from error
    return _arrays(file, content, unpacked)


def _check_names(file: Path) -> None:
    """Refuses an archive of torch that names more than a state dict is made of.

    Of what torch runs without being asked, some takes any memory that a few bytes ask for. The
    names are looked for without anything being made of them.

    Raises:
        UserError: so it is.
    """
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
        named = {
            str(argument).replace(" ", ".") if code.name == "GLOBAL" else code.name
            for name in pickles
            for code, argument, _ in pickletools.genops(archive.read(name))
            if code.name in _NAMING
        }
    if others := sorted(name for name in named if not _OF_TENSORS.fullmatch(name)):
        raise UserError(
            f"{file} is refused: it names {shown(', '.join(others[:5]))}, which no state dict "
            f"needs, and which would have to be run to read it. {_MEND_PT}"
        )


def _check_archive(file: Path) -> int:
    """Returns how many bytes an archive unpacks to.

    Raises:
        UserError: they are out of proportion to the file, of which nothing is unpacked then; or a
            file in it was changed: numpy and torch read changed bytes without complaint.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        packed = file.stat().st_size
        if unpacked > max(_MOST_UNPACKED, _MOST_RATIO * packed):
            raise UserError(
                f"{file} cannot be read: it unpacks to {unpacked / 1e6:,.0f} MB, which no weights "
                f"of {packed / 1e6:.3g} MB do"
            )
        if (changed := archive.testzip()) is not None:
            raise UserError(f"{file} is damaged: {shown(changed)} in it was changed.")
    return unpacked


def _arrays(file: Path, content: Any, unpacked: int) -> dict[str, np.ndarray]:
    """Returns the tensors of what torch has read from so many bytes."""
    tensors = content.get(_MODEL, content) if isinstance(content, Mapping) else content
    if not isinstance(tensors, Mapping):
        raise UserError(f'{file} holds no state dict, neither by itself nor as "{_MODEL}".')
    arrays, problems = {}, []
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            problems.append(f"{name!r:.60}: a name that is not text")
            continue
        try:
            arrays[name] = tensor.detach().numpy()
            # Torch gives a tensor that is larger than what is stored of it memory of its own.
            if max(arrays[name].nbytes, tensor.untyped_storage().nbytes()) > unpacked:
                problems.append(f"{name}: larger than the file")
        except (AttributeError, RuntimeError, TypeError):
            problems.append(f"{name}: {type(tensor).__name__} that numpy cannot hold")
    if problems:
        raise UserError(
            f"{file} holds more than tensors of plain numbers:\n{listed(problems)}\n{_MEND_PT}"
        )
    return arrays


def _write_pt(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    torch = _torch()
    with file.open("wb") as stream:
        torch.save({_MODEL: {name: torch.from_numpy(x) for name, x in arrays.items()}}, stream)


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "*.pt files need PyTorch: pip install 'jaxmat-transfer[convert]'. "
            "*.npz and *.safetensors do not."
        ) from error
    return torch
