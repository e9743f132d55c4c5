"""A headless Chromium for tests of pages; tests are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright, driving a Chromium that is installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, NAMES)), str(own) if own.exists() else None)
        if found is None:
            pytest.skip("needs a Chromium: none is on the PATH")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that is open, and all that it has said and asked for."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        """Open a page from the disk and wait until it is ready."""
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place of the map, go to the others, and let go."""
        box = self.page.locator("#overlay").bounding_box()
        for i, (x, y) in enumerate(places):
            self.page.mouse.move(box["x"] + x, box["y"] + y)
            if i == 0:
                self.page.mouse.down()
        self.page.mouse.up()
