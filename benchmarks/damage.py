"""Ways to damage a checkpoint, and a disk that can be filled."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from jaxmat.training import checkpoint_files

_DISK = 16  # MB


def halve(file: Path) -> None:
    """Cuts off the second half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Inverts the byte in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _empty(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


def _put_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("")


def _write_half(place: Path) -> None:
    (place / "files.json").unlink()
    shutil.rmtree(place / "params" / "d")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda place: halve(place / "params" / "manifest.ocdbt"),
    "bit flipped": lambda place: flip(next((place / "params" / "d").iterdir())),
    "list of files flipped": lambda place: flip(place / "files.json"),
    "file missing": lambda place: (place / "about.json").unlink(),
    "a file in its place": _put_file,
    "empty": _empty,
    "half written": _write_half,
}


class Disk(NamedTuple):
    """A disk that can be filled.

    Attributes:
        folder: where it is.
        kind: what it is, in words.
        fill: fills it.
        free: makes room again.
    """

    folder: Path
    kind: str
    fill: Callable[[], object]
    free: Callable[[], object]


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Gives a small tmpfs, or a folder and a writer that fails where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}m", "tmpfs", str(folder)]
    if os.getuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        filler = folder / "filler"
        try:
            yield Disk(folder, f"tmpfs of {_DISK} MB", lambda: _fill(filler), filler.unlink)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writer = mock.patch.object(checkpoint_files, "_write_trees", side_effect=error)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                yield Disk(Path(place), "failing writer", writer.start, writer.stop)
            finally:
                writer.stop()


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1024))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def contents(place: Path) -> dict[Path, bytes]:
    """Returns the bytes of a file, or of all files in a folder."""
    paths = [place, *place.rglob("*")]
    return {path: path.read_bytes() for path in paths if path.is_file()}
