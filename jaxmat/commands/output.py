"""What commands write: never in place of what is not theirs, and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxmat.data.formats.recognise import format_of_name
from jaxmat.errors import UserError
from jaxmat.runtime.files import reason

_BEGINNING = 2**16  # bytes of a file that tell whose it is


def refuse_overwriting(
    output: str | Path,
    inputs: Iterable[str | Path],
    is_own: Callable[[bytes], bool],
    named: str = "--output=",
) -> None:
    """Checks before the work begins that its result takes the place of nothing but an earlier one.

    An empty file may be written to, and so may a pipe or a device.

    Args:
        output: file to write.
        inputs: files and folders that are read.
        is_own: whether a file that begins so was made by this command.
        named: what the output is called in messages.

    Raises:
        UserError: it is one of the inputs, a structure, a folder, or made by something else.
    """
    target = Path(output)
    try:
        if not target.exists():
            return
        if target.is_dir():
            raise UserError(f"{named}{output} is a folder; give the name of a file.")
        for source in map(Path, inputs):
            if source.exists() and os.path.samefile(source, target):
                raise UserError(
                    f"{named}{output} is an input, which would be lost; give another name."
                )
        if not target.is_file():
            return
        with target.open("rb") as stream:
            beginning = stream.read(_BEGINNING)
    except OSError as error:
        raise UserError(f"Cannot write {named}{output}: {reason(error)}.") from error
    if beginning and not is_own(beginning):
        what = "a structure" if format_of_name(target.name) else "there, and not made by this verb"
        raise UserError(
            f"{named}{output} is {what}: it would be lost; give another name, or move it."
        )


def require_folder(output: str | Path) -> None:
    """Finds out now rather than after hours whether there is a folder to write to.

    Raises:
        UserError: there is none, or it cannot be written.
    """
    target = os.path.realpath(output)  # where `whole_file` writes, beside an earlier file
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise UserError(f"Cannot write --output={output}: there is no folder {folder}.")
    is_device = os.path.exists(target) and not os.path.isfile(target)
    if not os.access(folder, os.W_OK) and not is_device:
        raise UserError(f"Cannot write --output={output}: the folder {folder} cannot be written.")


@contextmanager
def writing(output: str | Path) -> Iterator[None]:
    """Says of an error of the system that it is about the output.

    Raises:
        UserError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write --output={output}: {reason(error)}") from error
