"""Parts of a page that needs nothing but itself: text is escaped, pictures and scripts inside."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

Content = Element | str

# What HTML has no place for: control characters but the tabulator and the ends of lines.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


_GENERATOR = "jaxmat"


def is_page(beginning: bytes) -> bool:
    """Whether a file that begins so is a page of ours."""
    return f'name="generator" content="{_GENERATOR}"'.encode() in beginning


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """Returns an element; `class_` stands for the attribute `class`."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + part
        else:
            made.text = (made.text or "") + part
    return made


def paragraph(*content: Content) -> Element:
    """Returns a paragraph."""
    return element("p", *content)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> Element:
    """Returns a table.

    Args:
        header: names of the columns.
        rows: cells.
        texts: so many columns hold text, on the left; all others hold numbers.
    """
    kinds = ["text" if at < texts else "number" for at in range(len(header))]

    def line(tag: str, cells: Sequence[str]) -> Element:
        pairs = zip(cells, kinds, strict=True)
        return element("tr", *(element(tag, cell, class_=kind) for cell, kind in pairs))

    body = element("tbody", *(line("td", [*map(_as_shown, row, kinds)]) for row in rows))
    head = element("thead", line("th", header))
    return element("div", element("table", head, body), class_="scroll")


def _as_shown(cell: str, kind: str) -> str:
    """Returns a cell with the minus of numbers as it is printed."""
    return cell.replace("-", "−") if kind == "number" else cell


def picture(file: Path, description: str) -> Element:
    """Returns a PNG file as a figure with its description beneath, and all its bytes inside."""
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    image = element("img", src=f"data:image/png;base64,{content}", alt=description)
    return element("figure", image, element("figcaption", description))


def data(content: Any, **attributes: str) -> Element:
    """Returns JSON for the script of the page to read; NaN has to be None in it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    # The text of a script is not escaped, and ends at the first "</script".
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return element("script", text, type="application/json", **attributes)


def folded(title: str, *content: Content, opened: bool = False) -> Element:
    """Returns content under a title that shows and hides it."""
    attributes = {"open": "open"} if opened else {}
    return element("details", element("summary", title), *content, **attributes)


def page(title: str, lead: Sequence[Content], sections: Sequence[tuple[str, list[Content]]]) -> str:
    """Returns a page as text.

    Args:
        title: of the page.
        lead: what stands under the title.
        sections: heading and content of each section.
    """
    anchors = [f"section-{number}" for number in range(1, len(sections) + 1)]
    links = [
        part
        for anchor, (heading, _) in zip(anchors, sections, strict=True)
        for part in (element("a", heading, href=f"#{anchor}"), " ")  # lines break at the blanks
    ]
    parts = [
        element("section", element("h2", heading, id=anchor), *content)
        for anchor, (heading, content) in zip(anchors, sections, strict=True)
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=_GENERATOR),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _file("page.css")),
    )
    script = element("script", _file("page.js"))
    body = element("body", element("h1", title), *lead, element("nav", *links), *parts, script)
    whole = element("html", head, body, lang="en")
    text = "<!DOCTYPE html>\n" + tostring(whole, encoding="unicode", method="html") + "\n"
    # Names of files that are not UTF-8 arrive with surrogates, which no encoding takes.
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "replace").decode("utf-8"))


def _file(name: str) -> str:
    return resources.files("jaxmat.report").joinpath(name).read_text(encoding="utf-8")
