"""Pictures of one image side by side, as HTML: a pair with a divider, and enlarged details.

Pictures for the divider are at most 1,200 pixels long and compressed (JPEG): a page of raw noise
would be tens of megabytes. Details are never compressed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.denoising.image_quality import white
from narrows.io.write import pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[Any]

LONGEST = 1200  # pixels of the longer side of a whole picture
SMALLEST = 480  # smaller ones are enlarged until they are about so long
CROP, CROPS, STEP = 128, 3, 16  # the side of a detail, how many, and the grid they are sought on
ENLARGED = 256  # pixels of a detail's longer side on the page


def sides(name: str, images: Mapping[str, Image]) -> str:
    """The first two pictures as a pair that a script lays under one divider, then the others.

    ``name`` is the image's, ``images`` its pictures by method; each (H, W) or (H, W, 3).
    """
    shown = [_whole(name, method, image) for method, image in images.items()]
    options = "".join(f'<option value="{i}">{escape(m)}</option>' for i, m in enumerate(images))
    choices = "".join(
        f"<label>{side}<select>{options}</select></label>" for side in ("Left", "Right")
    )
    more = "\n".join(shown[2:])
    others = (
        f'<details><summary>The other pictures</summary><div class="pictures">\n{more}\n'
        "</div></details>\n"
        if more
        else ""
    )
    plain = " plain" if max(next(iter(images.values())).shape[:2]) < SMALLEST else ""
    return (
        f'<div class="controls" hidden>{choices}</div>\n'
        f'<div class="sides{plain}">\n{shown[0]}\n{shown[1]}\n'
        '<input class="divider" type="range" min="0" max="100" value="50" step="0.5" '
        f'aria-label="Divider of {escape(name)}: how much of the left picture shows, in percent">'
        f'<span class="bar"></span>\n</div>\n{others}'
    )


def crops(name: str, images: Mapping[str, Image], detail: Image) -> str:
    """The squares with most detail in ``detail``, cut from every picture, enlarged."""
    places = detailed(detail)
    height, width = (min(CROP, side) for side in detail.shape[:2])
    factor = max(1, ENLARGED // max(height, width))
    rows = []
    for top, left in places:
        cells = []
        for method, image in images.items():
            part = shades(image[top : top + height, left : left + width])
            alt = f"{method}: {width} by {height} pixels of {name}, {left} from left, {top} down"
            cells.append(
                _figure(_data(part, "PNG"), alt, method, (width * factor, height * factor))
            )
        rows.append(f'<div class="crops">\n{"".join(cells)}\n</div>')
    title = f"Details, every pixel {factor} times enlarged" if factor > 1 else "Details"
    return f"<h3>{title}</h3>\n" + "\n".join(rows)


def shades(image: Image) -> NDArray[np.uint8]:
    """The image in 8 bits: its white becomes 255, what lies beyond black and white is cut.

    >>> shades(np.array([[0.0, 0.5, 2.0]])), shades(np.array([[257, 65535]], np.uint16))
    (array([[  0, 128, 255]], dtype=uint8), array([[  1, 255]], dtype=uint8))
    """
    axes = "HW" if image.ndim == 2 else "HWC"
    made: NDArray[np.uint8] = pictures(image[None], axes=axes, bounds=(0.0, white(image)))[0]
    return made


def detailed(image: Image) -> list[tuple[int, int]]:
    """Top and left of the squares, none overlapping, with the greatest mean slope.

    >>> image = np.zeros((512, 512), np.uint8)
    >>> image[300:310:2, 300:310] = 255
    >>> detailed(image)[0]
    (192, 192)
    """
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    slope = np.zeros(grey.shape, np.float32)
    slope[1:] += np.abs(np.diff(grey, axis=0))
    slope[:, 1:] += np.abs(np.diff(grey, axis=1))
    sums = np.pad(slope, ((1, 0), (1, 0))).cumsum(0, dtype=np.float64).cumsum(1)
    height, width = (min(CROP, side) for side in grey.shape)
    y, x = (_starts(side) for side in grey.shape)
    found = _block_sums(sums, y, x, height, width)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < CROPS and np.isfinite(found).any():
        row, column = np.unravel_index(int(found.argmax()), found.shape)
        top, left = int(y[row]), int(x[column])
        chosen.append((top, left))
        found[np.ix_(np.abs(y - top) < height, np.abs(x - left) < width)] = -np.inf
    return chosen


def _starts(side: int) -> NDArray[np.intp]:
    """Where squares may begin along a side: on a grid, and at its end."""
    last = max(0, side - CROP)
    return np.unique([*range(0, last, STEP), last])


def _block_sums(
    sums: NDArray[np.float64], y: Image, x: Image, height: int, width: int
) -> NDArray[np.float64]:
    low, high = sums[y], sums[y + height]
    found: NDArray[np.float64] = high[:, x + width] - high[:, x] - low[:, x + width] + low[:, x]
    return found


def _whole(name: str, method: str, image: Image) -> str:
    from PIL import Image as pillow

    made = pillow.fromarray(shades(image))
    made.thumbnail((LONGEST, LONGEST), pillow.Resampling.LANCZOS)
    factor = max(1, SMALLEST // max(made.size))
    data = _data(np.asarray(made), "JPEG")
    size = (made.width * factor, made.height * factor)
    return _figure(data, f"{method}: the whole of {name}", method, size, picture=True)


def _data(image: NDArray[np.uint8], kind: str) -> str:
    """A picture as an address that holds it."""
    from PIL import Image as pillow

    buffer = io.BytesIO()
    given = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    pillow.fromarray(image).save(buffer, kind, **given)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _figure(data: str, alt: str, method: str, size: tuple[int, int], picture: bool = False) -> str:
    named = f' data-picture="{escape(method)}"' if picture else ""
    return (
        f'<figure><img src="{data}" alt="{escape(alt)}" width="{size[0]}" height="{size[1]}" '
        f'style="width: {size[0]}px"{named}><figcaption>{escape(method)}</figcaption></figure>'
    )
