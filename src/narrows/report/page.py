"""One HTML page that needs no other file: text, tables, and pictures as data.

The pages of all commands are made of these parts. `render` fills the template
``templates/page.html.jinja``, which escapes every text; `publish` also writes the pictures.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.io.write import PAGES, atomic_write, check_output
from narrows.report.figures import png_bytes
from narrows.report.formatting import count, percent, significant

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

# The pictures that a report writes: nothing else in its folder may be removed.
PICTURE_FILES = re.compile(
    r"(samples|denoising|map|grid|traversals|interpolations|generated|loss|validation|errors|models)"
    r"(-[\w-]+)?\.png"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure: ``name`` becomes its file's stem, ``alt`` describes it in words."""

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    wide: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page, in CSS pixels."""
        width, height = self.figure.get_size_inches()
        return round(100 * width), round(100 * height)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the first cell of each row is its name."""

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
    kicker: str = ""  # a small line above the title
    html: str = ""  # shown before the tables; already escaped


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page."""

    kicker: str
    title: str
    headline: str
    caveat: str
    tiles: Sequence[tuple[str, str]]  # (number, what it is)
    sections: Sequence[Section]
    foot: str
    explanation: str = ""  # beside the headline
    pngs: dict[str, bytes] = field(default_factory=dict)  # by picture's name
    style: str = ""  # CSS after that of all pages
    script: str = ""


def render(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    encoded = {name: base64.b64encode(png).decode("ascii") for name, png in page.pngs.items()}
    style = asset("page.css") + page.style
    return template("page.html.jinja").render(page=page, style=style, pngs=encoded)


@cache
def template(name: str, package: str = "narrows.report") -> Template:
    """A jinja2 template of the package's folder ``templates``; .html.jinja escapes its values."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,  # a name that is missing is an error, not empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "percent": percent, "significant": significant}
    return environment.get_template(name)


def asset(name: str, package: str = "narrows.report") -> str:
    """The text of a file in the package's folder ``templates``."""
    return resources.files(package).joinpath("templates", name).read_text("utf-8")


def draw(sections: Iterable[Section]) -> dict[str, bytes]:
    """Every picture of the sections as PNG, by its name."""
    return {
        picture.name: png_bytes(picture.figure)
        for section in sections
        for picture in section.pictures
    }


def pictures_folder(path: Path) -> Path:
    """The folder of the pictures of the page at ``path``."""
    return path.with_name(f"{path.stem}_files")


def check_page(path: Path, overwrite: bool) -> None:
    """Raise `FileError` unless the page and the folder of its pictures may be written."""
    check_output(path, PAGES, overwrite=overwrite)
    folder = f"{pictures_folder(path)}/"  # with /, as its name may have a suffix
    check_output(folder, ("",), overwrite=overwrite, replaceable=PICTURE_FILES)


def publish(path: Path, page: Page) -> Path:
    """Write the page and its pictures; each of the two is complete or absent."""
    text = render(page)
    with atomic_write(path) as file, atomic_write(pictures_folder(path)) as folder:
        folder.mkdir()
        for name, png in page.pngs.items():
            (folder / f"{name}.png").write_bytes(png)
        file.write_text(text, encoding="utf-8")
    return path
