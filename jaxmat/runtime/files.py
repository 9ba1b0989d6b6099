"""Files that are whole or not there, JSON that every program reads, text that does no harm."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from jaxmat.errors import UserError

UNFINISHED = ".unfinished"  # ends the name of a file or folder that is being written
# Bytes of a JSON file that describes something; tables have limits of their own.
_MOST_JSON = 64 * 2**20
# An address such as gs://bucket/file, of which a Path makes gs:/bucket/file.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")
_LONGEST_NAME = 200  # bytes, of a file; systems allow 143 to 255
# Control characters, and those that turn the direction of text or are not seen.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to; what was written gets the name `path` when the context ends.

    Where it ends with an exception, a KeyboardInterrupt included, nothing is left, and a file that
    was there before is as it was. A device or a pipe is written to directly.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link goes on to lead there
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    # Of its own, because several processes may write the same file at the same time.
    writer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    # In front, so that the suffix stays what it is.
    unfinished = target.with_name(beside(f".{writer}{UNFINISHED}.", target.name))
    try:
        yield unfinished
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def beside(before: str, name: str, after: str = "") -> str:
    """Returns the name of a file beside another, as much of whose name as there is room for in it.

    Args:
        before: what it begins with.
        name: of the other file.
        after: what it ends with.
    """
    room = _LONGEST_NAME - len(os.fsencode(before + after))
    return before + os.fsdecode(os.fsencode(name)[-room:]) + after


def to_json(content: Any, indent: int | None = 1) -> str:
    """Returns strict JSON: numbers that are not finite become null, as JSON has none.

    Args:
        content: JSON values.
        indent: of each level; None: all in one line.
    """
    return json.dumps(without_infinities(content), indent=indent, allow_nan=False)


def without_infinities(content: Any) -> Any:
    """Returns JSON values with None in place of numbers that are not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: without_infinities(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_infinities(value) for value in content]
    return content


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes a JSON file that is whole or not there, even after a power failure.

    Args:
        path: of the file.
        content: JSON values, see `to_json`.

    Raises:
        OSError: it cannot be written.
    """
    text = to_json(content) + "\n"
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike[str], most: int = _MOST_JSON) -> dict[str, Any]:
    """Reads a JSON object from a regular file.

    Args:
        path: of the file.
        most: bytes it may have.

    Raises:
        UserError: there is no such file, it is larger, or it holds something else.
    """
    data = read_regular(path, most)
    try:
        content = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} cannot be read: no JSON at line {error.lineno}, column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is not text in UTF-8") from error
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: its JSON is nested too deeply") from error
    except UserError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read: a number in it has too many digits") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it is not a JSON object")
    return content


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Reads a regular file.

    Args:
        path: of the file.
        most: bytes it may have.

    Raises:
        UserError: there is no such file, it is larger, a folder, a pipe or a device, or it cannot
            be read.
    """
    require_regular(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    if len(content) > most:
        raise UserError(f"{path} cannot be read: it has more than {most / 2**20:.0f} MB")
    return content


def digest_file(path: str | os.PathLike[str] | None) -> str | None:
    """Returns a digest of a regular file, None of others; reading them tells more."""
    try:
        if path is None or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, ValueError):
        return None


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuses what is not a regular file: a folder, or a pipe or device that never comes to an end.

    Raises:
        UserError: it is not there, or something else.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise UserError(f"{path} cannot be read: it is {kind}, not a file")


def refuse_addresses(values: Mapping[str, object]) -> None:
    """Checks that none of some values is the address of an object store or of a web page.

    Files are locked, added to and mapped, which object stores cannot do; and a folder called "gs:"
    is not what is meant.

    Args:
        values: by what they are called in the message.

    Raises:
        UserError: some are.
    """
    if wrong := [f"{name}: {value}" for name, value in values.items() if is_address(value)]:
        raise UserError(
            "These are addresses, but jaxmat works on files:\n  " + "\n  ".join(wrong) + "\n"
            "Copy what is there to a disk (gcloud storage cp, aws s3 cp, wget) and give that path; "
            "copy results back likewise."
        )


def is_address(value: object) -> bool:
    """Whether a value is an address such as gs://bucket/file, a list of them, or has one in it."""
    if isinstance(value, (list, tuple)):
        return any(map(is_address, value))
    return isinstance(value, (str, Path)) and bool(_ADDRESS.match(str(value).strip()))


def rejoin_paths(parts: Sequence[str]) -> list[str]:
    """Returns paths from what a list of them was split into at its commas.

    Parts that are the path of something together are one path, the longest first; blank ones are
    passed over.

    Args:
        parts: in their order.
    """
    paths: list[str] = []
    while parts:
        several = range(len(parts), 1, -1)
        joined = ((n, comma.join(parts[:n])) for n in several for comma in (",", ", "))
        n, path = next(((n, path) for n, path in joined if os.path.exists(path)), (1, parts[0]))
        paths += [path] if path.strip() else []
        parts = parts[n:]
    return paths


def reason(error: Exception) -> str:
    """Returns what the system says of a failure, without its number and the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower() if text else str(error)


def shown(text: str) -> str:
    r"""Returns text whose control characters are written out, such as \x1b, for one line."""
    return CONTROL.sub(_escape, text)


def shown_lines(text: str) -> str:
    """Returns text whose control characters but line ends and tabs are written out."""
    return re.sub(r"[^\n\t]+", lambda part: shown(part[0]), text)


def writable(text: str) -> str:
    r"""Returns text as files take it: halves of characters, as JSON may have them, as \ud83d.

    The bytes of names of files that are not UTF-8 stay as Python gives them.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _refuse_constant(name: str) -> NoReturn:
    raise UserError(f"{name} is not a JSON number")
