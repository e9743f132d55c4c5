"""One HTML page that needs nothing outside itself: text, tables, pictures as data."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from narrows.report.canvas import Picture

COLUMNS = {2: " two", 3: " three", 4: " two"}  # so many pictures, so many beside one another


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the first cell of each row names it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    code: bool = False  # the cells are program text
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a name to link to."""

    id: str
    title: str
    lead: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    program: Sequence[str] = ()  # lines of commands
    links: Sequence[tuple[str, str]] = ()  # (relative address, text)
    kicker: str = ""  # above the title
    html: str = ""  # more of it, escaped already, before the tables


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page."""

    kicker: str
    title: str
    headline: str
    caveat: str
    tiles: Sequence[tuple[str, str]]  # (figure, what it is)
    sections: Sequence[Section]
    foot: str
    pngs: dict[str, bytes] = field(default_factory=dict)  # by picture's name
    style: str = ""  # rules after those of all pages
    script: str = ""


def render(page: Page) -> str:
    """The page as HTML; every word from outside is escaped."""
    style = asset("page.css") + page.style
    script = f"<script>\n{page.script}</script>\n" if page.script else ""
    body = "\n".join(_section(section, page.pngs) for section in page.sections)
    tiles = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}</dd></div>"
        for figure, what in page.tiles
    )
    links = "".join(f'<a href="#{s.id}">{escape(s.title)}</a>' for s in page.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(page.title)} · narrows</title>
<style>
{style}</style>
</head>
<body>
<header id="result">
<p class="kicker">{escape(page.kicker)}</p>
<h1>{escape(page.title)}</h1>
<p class="headline">{escape(page.headline)}</p>
<dl class="tiles">{tiles}</dl>
<p class="caveat">{escape(page.caveat)}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer><p>{escape(page.foot)}</p></footer>
{script}</body>
</html>
"""


def asset(name: str) -> str:
    """The text of a file that lies beside this one."""
    return resources.files("narrows.report").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section, pngs: dict[str, bytes]) -> str:
    parts = [f"<p>{escape(section.lead)}</p>"] if section.lead else []
    if section.pictures:
        shown = "\n".join(_figure(picture, pngs[picture.name]) for picture in section.pictures)
        kind = "pictures" + COLUMNS.get(len(section.pictures), "")
        parts.append(f'<div class="{kind}">\n{shown}\n</div>')
    if section.html:
        parts.append(section.html)
    if section.tables:
        shown = "\n".join(_table(table) for table in section.tables)
        parts.append(f'<div class="tables">\n{shown}\n</div>')
    if section.program:
        lines = escape("\n".join(section.program))
        parts.append(f'<pre tabindex="0"><code>{lines}</code></pre>')
    if section.links:
        items = "".join(f'<li><a href="{escape(to)}">{escape(text)}</a></li>'
                        for to, text in section.links)  # fmt: skip
        parts.append(f"<ul>{items}</ul>")
    inside = "\n".join(parts)
    over = f'<p class="kicker">{escape(section.kicker)}</p>\n' if section.kicker else ""
    title = f"<h2>{escape(section.title)}</h2>"
    return f'<section id="{section.id}">\n{over}{title}\n{inside}\n</section>'


def _figure(picture: Picture, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    width, height = (round(100 * inches) for inches in picture.figure.get_size_inches())
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    kind = ' class="wide"' if picture.wide else ""
    return (
        f'<figure{kind}><img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" '
        f'width="{width}" height="{height}">{caption}</figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    kind = ' class="code"' if table.code else ""
    place = "scroll wide" if table.wide else "scroll"
    top = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="{place}"><table{kind}><caption>{escape(table.caption)}</caption>{top}\n'
        f"<tbody>\n{rows}\n</tbody></table>{note}</div>"
    )
