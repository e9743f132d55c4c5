"""Denoising photographs: narrows, BM3D and classical filters on the same noisy images.

    python benchmarks/denoising.py train  --train Train400 --seconds 1800      # one blind model
    python benchmarks/denoising.py test   --test Set12                         # with filters, BM3D
    python benchmarks/denoising.py noisy  --train Train400 --test Set12       # without clean images
    python benchmarks/denoising.py alone                                       # on a single image
    python benchmarks/denoising.py large                                       # 24 million pixels

Train400 and Set12 are folders of grey photographs that the user has (cszn/DnCNN has both);
``alone`` and ``large`` use scikit-image's. Rows are appended to ``results/denoising.jsonl``, from
which ``results/denoising.md`` is written (``table`` writes it again). The noise is white and
Gaussian, with one seed per image, and is neither clipped nor rounded unless a row says so. Every
method gets the same noisy image. Classical methods are given the true level; narrows estimates it
unless a row says otherwise. PSNR is computed after clipping to black and white and averaged over
images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import narrows
from denoising_table import write_table
from narrows import Denoiser, photographs
from narrows.denoising import FILTERS, psnr, ssim
from records import HERE, Book

Image = NDArray[np.float32]
Method = Callable[[Image, float], Image]
SIGMAS = (15, 25, 50)
VERSIONS = {
    "narrows": narrows.__version__,
    "torch": torch.__version__,
    "scikit-image": version("scikit-image"),
}


def read_folder(folder: Path) -> dict[str, Image]:
    """Grey photographs, white being 1, by name."""
    paths = photographs.find_photographs(folder)
    return {p.stem: as_grey(photographs.read_photograph(p).pixels) for p in paths}


def as_grey(pixels: NDArray[Any]) -> Image:
    """White is 1; a colour image by its mean."""
    grey = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return grey.mean(-1) if grey.ndim == 3 else grey


def ours() -> dict[str, Image]:
    """Photographs that come with scikit-image, grey, as they are."""
    from skimage import data

    names = ("camera", "coins", "moon", "page", "brick", "grass")
    return {name: as_grey(getattr(data, name)()) for name in names}


def noised(clean: Image, sigma: float, seed: int, i: int, clipped: bool) -> Image:
    """With noise of a standard deviation on the scale where white is 255."""
    rng = np.random.default_rng([seed, i])
    noisy = clean + sigma / 255 * rng.standard_normal(clean.shape)
    if clipped:
        noisy = (255 * noisy).round().clip(0, 255) / 255
    return noisy.astype(np.float32)


def bm3d(noisy: Image, sigma: float) -> Image:
    """BM3D by its authors' package ``bm3d``, which the bench extra does not install."""
    import bm3d as package

    answer: Image = package.bm3d(noisy, sigma).astype(np.float32)
    return answer


def by_model(model: Denoiser, sides: int, told: bool) -> Method:
    """narrows with ``sides`` views, with the level given (``told``) or estimated."""

    def clean(noisy: Image, sigma: float) -> Image:
        model.sides = sides
        answer: Image = model.denoise(noisy, 255 * sigma if told else None)
        return answer

    return clean


def measure(
    name: str, method: Method, clean: dict[str, Image], sigma: float, seed: int, clipped: bool
) -> dict[str, Any]:
    """Means over images: PSNR, SSIM and seconds."""
    each: dict[str, float] = {}
    likeness, seconds = 0.0, 0.0
    for i, (title, image) in enumerate(clean.items()):
        noisy = noised(image, sigma, seed, i, clipped)
        start = time.perf_counter()
        answer = method(noisy, sigma / 255)
        seconds += time.perf_counter() - start
        answer = answer.clip(0, 1)
        each[title] = round(psnr(image, answer), 3)
        likeness += ssim(image, answer) or 0.0
    n = len(clean)
    return {
        "method": name,
        "sigma": sigma,
        "seed": seed,
        "clipped": clipped,
        "psnr": sum(each.values()) / n,
        "ssim": likeness / n,
        "seconds": seconds / n,
        "megapixels": sum(image.size for image in clean.values()) / 1e6 / n,
        "each": each,
        "threads": torch.get_num_threads(),
        "versions": VERSIONS,
    }


def classical() -> Iterator[tuple[str, Method]]:
    """The noisy image itself, the filters, and BM3D."""
    yield "noisy", lambda noisy, sigma: noisy
    yield from FILTERS.items()
    yield "BM3D", bm3d


def train(args: argparse.Namespace, book: Book) -> None:
    """One blind model from clean images."""
    model = Denoiser(
        max_epochs=100_000,
        max_time=args.seconds,
        early_stopping=False,
        random_state=args.seed,
        verbose=True,
        checkpoint=args.model.with_suffix(".checkpoint"),
        checkpoint_every="5m",
        resume=True,
    ).fit(args.train)
    model.save(args.model, overwrite=True)
    card = model.info()
    book.add(
        {
            "section": "train",
            "data": args.train.name,
            "seed": args.seed,
            "seconds": model.fit_seconds_,
            "parameters": card["n_parameters"],
            "epochs": card["training"]["epochs"],
            "best_epoch": card["training"]["best_epoch"],
            "validation_psnr": card["training"]["psnr"],
            "megabytes": args.model.stat().st_size / 1e6,
            "threads": torch.get_num_threads(),
            "versions": VERSIONS,
        }
    )


def test(args: argparse.Namespace, book: Book) -> None:
    """The model and all other methods on a folder, or on scikit-image's photographs."""
    model = narrows.load(args.model)
    clean = ours() if args.test is None else read_folder(args.test)
    data = "scikit-image" if args.test is None else args.test.name
    methods: dict[str, Method] = {
        "narrows": by_model(model, 8, told=False),
        "narrows, one side": by_model(model, 1, told=False),
        "narrows, told the level": by_model(model, 8, told=True),
        **dict(classical()),
    }
    for sigma in args.sigmas:
        for name, method in methods.items():
            if args.names is None or name in args.names:
                row = measure(name, method, clean, sigma, args.seed, args.clipped)
                book.add({"section": "test", "data": data, **row})


def noisy(args: argparse.Namespace, book: Book) -> None:
    """The same network, trained on clean images and on noisy ones only."""
    clean, sigma = read_folder(args.train), 25.0
    given = [noised(x, sigma, 1000 + args.seed, i, False) for i, x in enumerate(clean.values())]
    shared: dict[str, Any] = {
        "max_epochs": 100_000,
        "max_time": args.seconds,
        "early_stopping": False,
        "random_state": args.seed,
        "verbose": True,
    }
    held = read_folder(args.test)
    variants: dict[str, tuple[Denoiser, Any]] = {
        "clean images": (Denoiser(noise_level=sigma, **shared), list(clean.values())),
        "noisy images": (Denoiser(noisy_targets=True, pairs="recorrupted", **shared), given),
        "noisy images, halves": (Denoiser(noisy_targets=True, pairs="halves", **shared), given),
    }
    for name, (model, images) in variants.items():
        if args.names is not None and name not in args.names:
            continue
        model.fit(images)
        row = measure(name, by_model(model, 8, told=False), held, sigma, args.seed, False)
        book.add({"section": "noisy", "data": args.test.name, "budget": args.seconds, **row})


def alone(args: argparse.Namespace, book: Book) -> None:
    """Learning from the image that is to be cleaned, and nothing else."""
    every = ours()
    chosen = {name: every[name] for name in args.images}

    def learn(noisy: Image, sigma: float) -> Image:
        # the seconds are those of everything: finding the level, learning, answering
        model = Denoiser(noisy_targets=True, max_time=args.seconds, random_state=args.seed)
        answer: Image = model.set_params(max_epochs=100_000).fit([noisy]).denoise(noisy)
        return answer

    for title, image in chosen.items():
        for name, method in {"narrows": learn, **dict(classical())}.items():
            if args.names is None or name in args.names:
                row = measure(name, method, {title: image}, args.sigmas[0], args.seed, args.clipped)
                budget = args.seconds if name == "narrows" else None
                book.add({"section": "alone", "data": title, "budget": budget, **row})


def large(args: argparse.Namespace, book: Book) -> None:
    """24 million pixels, in a process of its own whose peak of memory is measured."""
    if not args.child:
        words = [sys.executable, __file__, "large", "--child", "--model", str(args.model)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        book.add({"section": "large", **json.loads(done.stdout.strip().splitlines()[-1])})
        return
    model: Denoiser = narrows.load(args.model)
    camera = (255 * ours()["camera"]).round().astype(np.uint8)
    image = np.tile(camera, (8, 12))[:4000, :6000]
    rng = np.random.default_rng(0)
    for start in range(0, len(image), 500):  # in parts: the noise is not to be the peak
        part = image[start : start + 500]
        part[:] = (part + rng.normal(0, 25, part.shape)).round().clip(0, 255).astype(np.uint8)
    begin = time.perf_counter()
    model.denoise(image)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "method": "narrows, one side",
                "megapixels": image.size / 1e6,
                "seconds": seconds,
                "peak_gigabytes": peak / 1e9,
                "threads": torch.get_num_threads(),
                "versions": VERSIONS,
            }
        )
    )


SECTIONS = {"train": train, "test": test, "noisy": noisy, "alone": alone, "large": large}


def main() -> None:
    """Run one section and write the tables again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=[*SECTIONS, "table"])
    parser.add_argument("--train", type=Path, help="folder of clean grey photographs")
    parser.add_argument("--test", type=Path, help="folder of others; without it scikit-image's")
    parser.add_argument("--model", type=Path, default=Path("denoiser.safetensors"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="+", help="only these methods")
    parser.add_argument("--images", nargs="+", default=["camera"], help="alone: which")
    parser.add_argument("--clipped", action="store_true", help="noisy images of 8 bits")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    book = Book("denoising", args.out)
    if args.section != "table":
        SECTIONS[args.section](args, book)
    if not args.child:
        write_table(book)


if __name__ == "__main__":
    main()
