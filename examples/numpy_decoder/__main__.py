"""The command; the docstring of the package describes it."""

import sys
from pathlib import Path

import numpy as np

if not __package__:  # run as a folder: python examples/numpy_decoder …
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from numpy_decoder import Refused, decode


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit PGM or PPM file if it can hold the image, else a .npy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey, colour = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not image.size or not (grey or colour):
        np.save(path.with_name(path.name + ".npy"), image)
        return
    head = f"{'P5' if grey else 'P6'}\n{image.shape[1]} {image.shape[0]}\n255\n"
    suffix = ".pgm" if grey else ".ppm"
    path.with_name(path.name + suffix).write_bytes(head.encode() + image.tobytes())


def main(file: str, *rest: str) -> None:
    *model, out = rest
    kind, items = decode(Path(file).read_bytes(), Path(model[0]).read_bytes() if model else None)
    if kind == "images" or len(items) > 1:
        for number, (name, image) in enumerate(items):
            write_image(Path(out) / (name or str(number)), image)
    else:
        with Path(out).open("wb") as stream:
            np.save(stream, items[0][1])


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("python examples/numpy_decoder FILE.narrow [MODEL.safetensors] OUT")
    try:
        main(*sys.argv[1:])
    except (Refused, OSError) as error:
        sys.exit(f"error: {error}")
