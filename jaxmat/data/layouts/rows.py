"""A row of a table before its crystal is made, and what is asked for of a table."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row as it is found; its parts go through JSON from process to process.

    Attributes:
        id: by the column of ids, "" where there is none.
        name: the number of the row, or what it is called otherwise.
        place: where it stands, such as "line 3".
        kind: what `content` is: "text" of a structure file, "json" text, "path" of a file,
            "frame" of extended XYZ, or "problem": why there is no crystal.
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
        labels: names of columns; rows without a value in any of them are not read. Where a table
            has no header they name its columns of labels. None: all rows.
    """

    id_column: str = "material_id"
    labels: tuple[str, ...] | None = None


ALL = Wanted()
