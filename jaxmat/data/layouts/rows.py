"""A row of a table before its crystal is made, and what is asked for of a table."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

# A path, and the size and the time of change (ns) of the file there, -1 where there is none.
FileStamp = tuple[str, int, int]


class Row(NamedTuple):
    """A row as it is found; its parts go through JSON from process to process.

    Attributes:
        id: by the column of ids, "" where there is none.
        name: the number of the row, or what it is called otherwise.
        place: where it stands, such as "line 3".
        kind: what `content` is: "text" of a structure file, "json" text, "path" of a file,
            "frame" of extended XYZ, "missing": a path without a file, "problem": why there is no
            crystal, "malformed": why its cells cannot be told, or "unlabelled": not asked for.
        content: see `kind`.
        key: where in the JSON value the structure is.
        labels: the other cells, by column.
    """

    id: str
    name: str
    place: str
    kind: str
    content: str
    key: list[str | int]
    labels: dict[str, Any]


class Wanted(NamedTuple):
    """What is asked for of a table.

    Attributes:
        id_column: column of the ids, tried before the usual ones; "" for none: the index.
        labels: names of columns; rows without a value in any of them are not read, unless their
            cells cannot be told. Where a table has no header they name its columns of labels. None:
            all rows.
        start: so many rows at the beginning are passed over.
    """

    id_column: str = "material_id"
    labels: tuple[str, ...] | None = None
    start: int = 0


ALL = Wanted()


def file_stamp(path: str) -> FileStamp:
    """Returns what tells a file from a later one in its place."""
    full = os.path.abspath(path)
    try:
        status = os.stat(full)
    except (OSError, ValueError):
        return full, -1, -1
    return full, status.st_size, status.st_mtime_ns
