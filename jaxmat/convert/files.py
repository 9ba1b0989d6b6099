"""State dicts on disk: *.pt, *.npz and *.safetensors. Nothing that a file contains is run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jaxmat.errors import UserError, listed

SUFFIXES = (".pt", ".npz", ".safetensors")
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
    try:
        return reader(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error


def write_state_dict(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict; the suffix of the file says how, see `read_state_dict`.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    writers = {".pt": _write_pt, ".npz": _write_npz, ".safetensors": _write_safetensors}
    writer = writers[_suffix(file)]
    try:
        writer(file, arrays)
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error}") from error


def _suffix(file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file} is not of a kind that is known: {', '.join(SUFFIXES)}.")
    return file.suffix


def _read_npz(file: Path) -> dict[str, np.ndarray]:
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
        raise UserError(f"{file} has entries of dtype {error}, which numpy has not.") from error


def _write_safetensors(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # safetensors writes the buffer of an array as it lies in memory, whatever its strides.
    file.write_bytes(save({name: np.asarray(x, order="C") for name, x in arrays.items()}))


def _read_pt(file: Path) -> dict[str, np.ndarray]:
    torch = _torch()
    try:
        # Torch itself reads changed bytes of a tensor without complaint.
        with zipfile.ZipFile(file) as archive:
            if (changed := archive.testzip()) is not None:
                raise UserError(f"{file} is damaged: {changed} in it was changed.")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = [line for line in str(error).splitlines() if "GLOBAL" in line] or [""]
        raise UserError(
            f"{file} is refused: to read it, code that it names would have to be run. "
            f"{reason[0].strip()}\nIf you trust its source, load it where it was made and save "
            'the state dict alone: torch.save({"model": model.state_dict()}, FILE).'
        ) from error
    except RuntimeError as error:
        raise UserError(f"{file} is no checkpoint that torch can read: {error}") from error
    return _arrays(file, content)


def _arrays(file: Path, content: Any) -> dict[str, np.ndarray]:
    """Returns the tensors of what torch has read."""
    tensors = content.get(_MODEL, content) if isinstance(content, Mapping) else content
    if not isinstance(tensors, Mapping):
        raise UserError(f'{file} holds no state dict, neither by itself nor as "{_MODEL}".')
    arrays, problems = {}, []
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.detach().numpy()
        except (AttributeError, RuntimeError, TypeError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise UserError(f"{file} holds more than tensors of plain numbers:\n{listed(problems)}")
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
