"""What commands write: never in place of what they read, and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxmat.data.formats.recognise import format_of_name
from jaxmat.errors import UserError
from jaxmat.runtime.files import reason


def refuse_overwriting(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Checks before the work begins that its result takes the place of no input.

    Args:
        output: file or folder to write.
        inputs: files and folders that are read.

    Raises:
        UserError: it is one of the inputs, lies in a folder that is one and is a file of a kind
            that is read from there.
    """
    target = Path(output)
    if not target.exists():
        return
    for source in map(Path, inputs):
        if source.exists() and os.path.samefile(source, target):
            raise UserError(
                f"--output={output} is an input, which would be lost; give another name."
            )
    if target.is_file() and format_of_name(target.name):
        raise UserError(
            f"--output={output} is a structure, which would be lost; give another name."
        )


def require_folder(output: str | Path) -> None:
    """Finds out now rather than after hours whether there is a folder to write to.

    Raises:
        UserError: there is none.
    """
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UserError(f"Cannot write --output={output}: there is no folder {folder}.")


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
