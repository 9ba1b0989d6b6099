"""Parts of a page that needs nothing but itself: text is escaped, pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

Content = Element | str

_STYLE = """
:root { color-scheme: light; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1.5rem; background: #fff; color: #1c1c1c;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-bottom: .25rem;
     border-bottom: 1px solid #d8d8d8; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { color: #444; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .7rem 0; font-size: .875rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .75rem .22rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid #888; font-weight: 600; vertical-align: bottom; }
tbody tr + tr td { border-top: 1px solid #ececec; }
.number { text-align: right; white-space: nowrap; }
.text { overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr));
            gap: 0 1.5rem; }
figcaption { color: #444; font-size: .875rem; max-width: 46rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre { background: #f5f5f5; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0a4f8a; }
"""


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

    body = element("tbody", *(line("td", row) for row in rows))
    head = element("thead", line("th", header))
    return element("div", element("table", head, body), class_="scroll")


def picture(file: Path, description: str) -> Element:
    """Returns a PNG file as a figure with its description beneath, and all its bytes inside."""
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    image = element("img", src=f"data:image/png;base64,{content}", alt=description)
    return element("figure", image, element("figcaption", description))


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
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _STYLE),
    )
    body = element("body", element("h1", title), *lead, element("nav", *links), *parts)
    whole = element("html", head, body, lang="en")
    return "<!DOCTYPE html>\n" + tostring(whole, encoding="unicode", method="html") + "\n"
