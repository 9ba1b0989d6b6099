"""CIFs of several crystals, as databases export them: each data block is one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jaxmat.data.formats.sites import shortened
from jaxmat.data.layouts.json_stream import MAX_VALUE
from jaxmat.data.layouts.rows import Row
from jaxmat.errors import UserError

_COORDINATES = re.compile(r"_atom_site[._](fract|cartn)_x\b", re.IGNORECASE)
_LONGEST_NAME = 80  # characters of a block's name that are shown


class _Block(NamedTuple):
    """A data block with coordinates of atoms."""

    name: str
    text: str


def read_blocks(lines: Iterator[str], source: str) -> Iterator[Row]:
    """Yields a crystal for each data block with atoms, FILE#BLOCK; one alone is the file's.

    Args:
        lines: of the file.
        source: its path.
    """
    names: Counter[str] = Counter()
    previous: Row | None = None
    number = 0
    for number, block in enumerate(_blocks(lines), start=1):
        if previous is not None:
            yield previous
        name = block.name or f"block {number}"
        names[name] += 1
        name += f" ({names[name]})" * (names[name] > 1)
        previous = Row("", f"{source}#{name}", f"block {name}", "text", block.text, [], {})
    if previous is None or number == 1:
        previous = Row("", source, "", "path", source, [], {})
    yield previous


def _blocks(lines: Iterator[str]) -> Iterator[_Block]:
    """Yields the blocks that list atoms, in time that grows with the length of the file."""
    name, text, size, has_atoms, quoted = "", list[str](), 0, False, False
    for line in lines:
        if line.startswith(";"):
            quoted = not quoted
        elif not quoted and line.lstrip()[:5].lower() == "data_":
            if has_atoms:
                yield _Block(name, "".join(text))
            name = line.split()[0][5:][:_LONGEST_NAME]
            text, size, has_atoms = [], 0, False
        elif not quoted and "_x" in line.lower() and _COORDINATES.search(line):
            has_atoms = True
        text.append(line)
        size += len(line)
        if size > MAX_VALUE:
            raise UserError(
                f"block {shortened(name)} has more than {MAX_VALUE} characters: not a crystal"
            )
    if has_atoms:
        yield _Block(name, "".join(text))
