"""The layout of Matbench and matminer tables: pandas "split" orientation in gzipped JSON."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from importlib.resources.abc import Traversable
from typing import Any

from jaxmat.errors import UserError, listed

# Tables of structures shrink 4 to 15 times; a file that expands far more is a trap.
_MAX_RATIO = 100
_FREE_BYTES = 64 * 2**20
_MAX_BYTES = 4 * 2**30


def read_split_layout(file: Traversable) -> tuple[list[Any], list[Any], list[list[Any]]]:
    """Reads {"index": [...], "columns": [...], "data": [[...], ...]} from *.json or *.json.gz.

    Returns:
        Index, column names and rows; each row has as many values as there are columns.

    Raises:
        UserError: the file cannot be read, is not gzip, not JSON, too large, or of another layout.
    """
    data = _read_bytes(file)
    if file.name.endswith(".gz"):
        data = _decompress(data, str(file))
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as reason:
        raise UserError(f"{file}: not JSON ({reason})") from reason

    parts = ("index", "columns", "data")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in parts
    ):
        raise UserError(
            f'{file}: a table is {{"index": [...], "columns": [...], "data": [[...], ...]}}, '
            'as pandas writes with DataFrame.to_json(orient="split")'
        )
    index, names, rows = (content[part] for part in parts)
    if not rows or len(index) != len(rows):
        raise UserError(f"{file}: {len(index)} entries in the index and {len(rows)} rows")
    problems = [
        f"row {key}: expected a list of {len(names)} values"
        for key, row in zip(index, rows, strict=True)
        if not isinstance(row, list) or len(row) != len(names)
    ]
    if problems:
        raise UserError(f"{file}: rows that do not match the columns:\n{listed(problems)}")
    return index, names, rows


def _read_bytes(file: Traversable) -> bytes:
    try:
        with file.open("rb") as stream:
            data: bytes = stream.read(_MAX_BYTES + 1)
    except OSError as reason:
        raise UserError(f"{file}: cannot be read ({reason})") from reason
    if len(data) > _MAX_BYTES:
        raise UserError(f"{file}: more than {_MAX_BYTES} bytes, too many for a table; split it")
    return data


def _decompress(data: bytes, source: str) -> bytes:
    limit = min(_MAX_BYTES, _FREE_BYTES + _MAX_RATIO * len(data))
    chunks, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while size <= limit and (chunk := stream.read(2**20)):
                chunks.append(chunk)
                size += len(chunk)
    except (OSError, EOFError, zlib.error) as reason:
        raise UserError(f"{source}: not a complete gzip file ({reason}); copy it again") from reason
    if size > limit:
        raise UserError(
            f"{source}: {len(data)} bytes expand to more than {limit}, too many for a table; "
            "unpack it yourself to *.json if you trust it"
        )
    return b"".join(chunks)
