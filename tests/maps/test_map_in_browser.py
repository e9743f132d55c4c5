"""A map's page in a real browser: it loads, hovers, decodes, selects, and asks for nothing."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.helpers.browser import Visit, chromium

from narrows import Autoencoder, ConditionalVAE, NeighborAutoencoder
from narrows.maps import write_map
from narrows.maps.geometry import metric_grid

DIGITS = load_digits()
GRID_DRAWN = (
    "() => new Promise((done) => {"
    " const wait = setInterval(() => page.gridCells?.length && done(clearInterval(wait)), 20); })"
)
FRAMES = "() => new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))"


class Opened(NamedTuple):
    visit: Visit
    model: Any
    X: Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def digits(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    X, names = DIGITS.images[:300], [f"<b>{n}</b></script>" for n in DIGITS.target[:300]]
    model = NeighborAutoencoder(latent_dim=2, max_epochs=8, random_state=0).fit(X)
    path = tmp_path_factory.mktemp("maps") / "a map with spaces.html"
    write_map(model, X, path, y=names, title="</title><script>alert(1)</script>")
    visit = Visit(browser, viewport={"width": 1280, "height": 900})
    visit.open(path)
    yield Opened(visit, model, X)
    # whatever the tests did: no message, and no request but for the page itself
    assert visit.said == []
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [
        path.as_uri()
    ]


def test_hover_shows_the_row_with_its_code_and_reconstruction(digits: Opened) -> None:
    page = digits.visit.page
    box = page.locator("#overlay").bounding_box()
    left, top = page.evaluate("() => page.map.toScreen(...page.placeOf(17))")
    page.mouse.move(box["x"] + left, box["y"] + top)
    page.evaluate(FRAMES)
    nearest = page.evaluate("([x, y]) => page.map.nearest(x, y)", [left, top])
    assert page.evaluate("() => page.hovered") == nearest
    page.evaluate("() => page.showPoint(17)")
    assert page.locator("#what").inner_text().startswith("row 17 · class <b>7</b></script>")
    page.wait_for_selector("#original:visible")
    shown = page.evaluate(
        "() => { const c = document.getElementById('original'), pen = c.getContext('2d');"
        " return [c.width, c.height, Array.from(pen.getImageData(0, 0, 8, 8).data)]; }"
    )
    pixels = np.array(shown[2]).reshape(8, 8, 4)[..., 0]
    assert shown[:2] == [8, 8]
    assert np.abs(pixels - digits.X[17] / 16 * 255).max() <= 0.5


def test_a_thousand_random_codes_decode_as_inverse_transform_does(digits: Opened) -> None:
    codes = np.asarray(digits.model.transform(digits.X))
    rng = np.random.default_rng(0)
    Z = rng.uniform(codes.min(0), codes.max(0), (1000, 2)).astype(np.float32)
    found = digits.visit.page.evaluate(
        "(codes) => codes.map((code) => Array.from(page.painter.pixels(page.decode(code)).data)"
        ".filter((_, i) => i % 4 === 0))",
        Z.tolist(),
    )
    rows = np.asarray(digits.model.inverse_transform(Z))
    low, high = digits.X.min(), digits.X.max()
    grey = np.clip((rows - low) / (high - low), 0, 1) * 255
    assert np.abs(np.array(found).reshape(-1, 8, 8) - grey).max() <= 1.0


def test_a_drag_decodes_the_place_under_the_pointer(digits: Opened) -> None:
    page = digits.visit.page
    digits.visit.drag((300, 300), (330, 310), (360, 330))
    page.evaluate(FRAMES)
    cursor = page.evaluate("() => page.cursor")
    place = page.evaluate("() => page.map.toMap(360, 330)")
    assert np.allclose(cursor, place)
    assert page.locator("#what").inner_text() == "decoded under the pointer"
    assert page.locator("#restored-caption").inner_text() == "decoded here"


def test_a_lasso_selects_and_exports_the_rows_inside(digits: Opened, tmp_path: Path) -> None:
    page = digits.visit.page
    page.click("[data-mode=lasso]")
    digits.visit.drag((200, 150), (600, 150), (600, 500), (200, 500), (200, 160))
    page.click("[data-mode=decode]")
    codes = np.asarray(digits.model.transform(digits.X))
    screen = np.array(page.evaluate("(z) => z.map((p) => page.map.toScreen(...p))", codes.tolist()))
    inside = ((screen > [200, 150]) & (screen < [600, 500])).all(1)
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "selection.csv")
    with (tmp_path / "selection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == np.flatnonzero(inside).tolist()
    assert {row["class"] for row in rows} <= {f"<b>{n}</b></script>" for n in range(10)}
    z = np.array([[float(row["z1"]), float(row["z2"])] for row in rows])
    assert np.allclose(z, codes[inside], atol=1e-6)
    page.click("#clear")


def test_two_pins_make_a_path(digits: Opened) -> None:
    page = digits.visit.page
    for row in (3, 40):
        page.evaluate(f"() => page.showPoint({row})")
        page.click("#pin")
    for kind in ("straight", "spherical", "shortest"):
        page.evaluate("() => document.getElementById('strip').replaceChildren()")
        page.select_option("#path-kind", kind)
        page.click("#walk")
        page.wait_for_selector("#strip canvas")
        found = np.array(page.evaluate("() => page.path.codes"))
        a, b = codes = np.asarray(digits.model.transform(digits.X[[3, 40]]), float)
        assert np.allclose(found[[0, 32]], codes, atol=1e-5)
        if kind == "straight":
            assert np.allclose(found, np.linspace(a, b, 33), atol=1e-5)
        elif kind == "spherical":
            turned = np.unwrap(np.arctan2(found[:, 1], found[:, 0]))
            assert np.allclose(np.diff(turned, 2), 0, atol=1e-5)  # at constant speed
        else:
            assert grid_cost(digits, found) <= grid_cost(digits, np.linspace(a, b, 33)) * 1.05


def grid_cost(digits: Opened, path: Any) -> float:
    """What the page's shortest path minimises, along any path."""
    grid = metric_grid(digits.model, digits.model.transform(digits.X))
    fine = np.concatenate([np.linspace(a, b, 20) for a, b in pairwise(path)])
    place = np.rint((fine - grid.low) / (grid.high - grid.low) * 47).astype(int).clip(0, 47)
    dear = 1 + 10 * grid.gaps[place[:, 0], place[:, 1]]
    rows = np.asarray(digits.model.inverse_transform(fine.astype(np.float32))).reshape(
        len(fine), -1
    )
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    return float((steps * (dear[1:] + dear[:-1]) / 2).sum())


def test_the_keyboard_reaches_everything_that_the_pointer_does(digits: Opened) -> None:
    page = digits.visit.page
    page.locator("#overlay").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    before = page.evaluate("() => page.cursor")
    page.keyboard.press("ArrowUp")
    after = page.evaluate("() => page.cursor")
    assert after[0] == before[0] and after[1] > before[1]
    pins = page.locator("#pins li").count()
    page.keyboard.press("Enter")
    assert page.locator("#pins li").count() == pins + 1
    scale = page.evaluate("() => page.map.view.scale")
    page.keyboard.press("+")
    assert page.evaluate("() => page.map.view.scale") > scale
    page.keyboard.press("0")


def test_search_finds_a_row_by_its_number_and_rows_by_their_class(digits: Opened) -> None:
    page = digits.visit.page
    for text, words in (("12", "1 row found."), ("<b>3</b></script>", "rows found."), ("x", "No")):
        page.fill("#search", text)
        page.press("#search", "Enter")
        assert words in page.locator("#selected").inner_text()


def test_colours_and_layers_change_the_picture(digits: Opened) -> None:
    page = digits.visit.page
    picture = "() => page.map.canvas.toDataURL()"
    seen = set()
    for change in (
        "() => page.colorBy('error')",
        "() => page.colorBy('code:1')",
        "() => document.getElementById('stretch').click()",
        "() => page.zoomBy(2)",
        "() => { page.colorBy('label'); page.hidden.add(1); page.filter(); }",
    ):
        page.evaluate(change)
        page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        seen.add(page.evaluate(picture))
    assert len(seen) == 5


def test_numbers_of_the_code_and_steps_towards_a_class_move_the_code(digits: Opened) -> None:
    page = digits.visit.page
    page.evaluate("() => page.showPoint(3)")
    before = page.evaluate("() => page.code")
    page.locator("#numbers input").first.fill("1.5")
    number = page.evaluate("() => page.sliders[0][0]")
    assert page.evaluate("() => page.code")[number] == pytest.approx(1.5, abs=0.01)
    page.evaluate("() => page.showPoint(3)")
    page.click("#towards")
    way = page.evaluate("() => Object.values(page.spec.directions)[0]")
    moved = np.array(page.evaluate("() => page.code")) - before
    assert np.allclose(moved, np.array(way) / 4, atol=1e-5)


def test_without_a_decoder_the_page_shows_rows_and_no_tools_to_decode(
    browser: Any, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    y = np.arange(50) % 2
    model = ConditionalVAE(latent_dim=3, max_epochs=1, random_state=0).fit(rows, y)
    write_map(model, rows, tmp_path / "map.html", y=y)
    visit = Visit(browser)
    visit.open(tmp_path / "map.html")
    for hidden in ("#pin", "#numbers", "#grid"):
        assert not visit.page.locator(hidden).is_visible()
    visit.page.evaluate("() => page.showPoint(3)")
    assert visit.page.locator("#restored-caption").inner_text() == "original"
    assert "narrows explore" in visit.page.locator(".quality").inner_text()
    assert visit.said == []


def test_a_pin_keeps_the_code_that_is_shown_and_not_its_projection(
    browser: Any, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 6))
    model = Autoencoder(latent_dim=4, max_epochs=1, random_state=0).fit(rows)
    write_map(model, rows, tmp_path / "map.html")
    visit = Visit(browser)
    visit.open(tmp_path / "map.html")
    page = visit.page
    page.evaluate("() => page.showPoint(5)")
    page.locator("#numbers input").nth(3).fill("2")
    page.click("#pin")
    assert page.evaluate("() => page.pins[0].code") == page.evaluate("() => page.code")
    assert visit.said == []


@pytest.mark.slow
def test_the_picture_in_the_docs(browser: Any, tmp_path: Path) -> None:
    """With NARROWS_PICTURES=1 it is written again."""
    X, y = DIGITS.images, DIGITS.target
    model = NeighborAutoencoder(latent_dim=2, max_epochs=100, test_size=0.1, random_state=0).fit(X)
    write_map(model, X, tmp_path / "map.html", y=y, title="digits")
    size = {"width": 1280, "height": 860}
    visit = Visit(browser, viewport=size, color_scheme="light", reduced_motion="reduce")
    visit.open(tmp_path / "map.html")
    page = visit.page
    for row in (0, 1):
        page.evaluate(f"() => page.showPoint({row})")
        page.click("#pin")
    page.select_option("#path-kind", "shortest")
    page.click("#walk")
    page.check("#grid")
    page.wait_for_selector("#strip canvas")
    page.evaluate(GRID_DRAWN)
    page.evaluate("() => page.showPoint(1)")
    page.wait_for_selector("#original:visible")
    page.evaluate(FRAMES)
    picture = page.screenshot(path=tmp_path / "map.png")
    assert visit.said == [] and len(picture) > 50_000
    if os.environ.get("NARROWS_PICTURES"):
        (Path(__file__).parents[2] / "docs" / "map.png").write_bytes(picture)
