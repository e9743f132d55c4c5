"""Reading a report's page the way a strict visitor would."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

ALWAYS = [
    "samples", "map", "grid", "traversals", "interpolations", "training", "errors", "comparison",
    "cost", "model", "commands",
]  # fmt: skip


class Page(HTMLParser):
    """What a page holds: its sections, pictures, tables' cells and every address."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.images: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.captions = 0
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href", "srcset") if name in given]
        if tag == "section":
            self.sections.append(given["id"])
        elif tag == "img":
            self.images.append(given)
        elif tag == "table":
            self.tables.append([])
        elif tag == "caption":
            self.captions += 1
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.tags and self.tags[-1] in ("th", "td") and self.tables:
            self.tables[-1][-1][-1] += data.strip()


def check_alone(page: Page, folder: Path, scripts: int = 0) -> None:
    """Nothing from outside is needed or even linked; what is linked is there."""
    outside = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "", page.text)
    assert not re.search(r"https?:|[\"'(]//|url\(|@import|<script[^>]|<link|<iframe", outside)
    assert page.tags.count("script") == scripts
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        elif not address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
            assert (folder / address).is_file()
    assert len(set(page.ids)) == len(page.ids)


def check_readable(page: Page) -> None:
    """Every picture is said in words, every table has a caption, phones get their own width."""
    assert page.images
    for image in page.images:
        assert len(image["alt"]) > 10
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0
    assert page.captions == len(page.tables)
    assert 'name="viewport"' in page.text
    assert "@media print" in page.text
