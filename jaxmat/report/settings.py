"""How a result was made, at the end of a page: command, versions and settings, folded away."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from jaxmat.report.html import Content, element, folded, paragraph, table


def settings_section(
    settings: Mapping[str, Any], versions: Mapping[str, Any], command: str
) -> list[Content]:
    """Returns the command that made a result, and what it was made with."""
    content: list[Content] = []
    if command:
        content += [paragraph("Made by:"), element("pre", command)]
    for title, values in (("Settings", settings), ("Versions", versions)):
        if values:
            flat = flatten_dict(dict(values), keep_empty_nodes=True, sep=".")
            lines = [[str(name), str(value)] for name, value in flat.items()]
            content.append(folded(title, table(["name", "value"], lines, texts=2)))
    return content


def command_line(arguments: Sequence[str]) -> str:
    """Returns a command as it is typed: the program by its name, a script with python before it."""
    program, *rest = arguments
    name = ["python", program] if program.endswith(".py") else [Path(program).name]
    return shlex.join([*name, *rest])
