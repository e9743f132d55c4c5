"""Compression: narrows, image coders, and coders of bytes and of arrays, on the same data.

    python benchmarks/compression.py --only mnist-lossless mnist-lossy fashion --seconds 300
    python benchmarks/compression.py --only photos --train Train400 --test Set12 --seconds 1200
    python benchmarks/compression.py --only fields --fields a.nc b.nc
    python benchmarks/compression.py --only tables --tables adbench/*.npz
    python benchmarks/compression.py --only speed
    python benchmarks/compression.py --quick     # test that all runs; figures mean nothing

MNIST and Fashion-MNIST are narrows' named data sets, or lie in ``--mnist`` and ``--fashion``. Other
data are files of the user; a section without its files is skipped, but ``photos`` always has
scikit-image's colour photographs. Every model is trained for ``--seconds`` on data other than those
that are compressed. Sizes are those of whole files; the model's bytes are listed separately. Every
narrows file is decoded again, and the run stops if the result is wrong.
Rows are appended to ``results/compression.jsonl``, from which ``results/compression.md`` is written
(``--only table`` writes it again).
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import narrows
from compression_data import (
    Pair,
    colour_photographs,
    fields,
    grey_photographs,
    small_images,
    tables,
    waves,
)
from compression_table import write_table
from narrows import Codec
from narrows.compression.other_coders import ImageFiles, images_of
from records import HERE, Book, Row
from timed_coders import TimedResult, image_curves, mean_psnr, timed_bounded, timed_lossless

Array = NDArray[Any]
SECTIONS = ("mnist-lossless", "mnist-lossy", "fashion", "photos", "fields", "tables", "speed")
BOUNDS = (1e-2, 1e-3, 1e-4)
SMALL_RATE = 100 / 784  # bits per pixel at the middle level, on images of 28 by 28
GREY_RATE, COLOUR_RATE = 0.4, 0.15  # the same per number of a photograph
PLAIN_ERRORS = (2, 5, 10, 20, 40)  # of 255: the curve of prediction without the autoencoder
PACKAGES = ("torch", "pillow", "imagecodecs", "pysz", "zstandard")


def versions() -> dict[str, str]:
    """The versions of narrows and of the coders that are installed."""
    found = {"narrows": narrows.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fit(X: Any, args: argparse.Namespace, epochs: int = 100_000, **wishes: Any) -> Codec:
    """A codec trained for ``--seconds``, or for fewer epochs; ``--wishes`` come last."""
    given = {"max_time": args.seconds, "random_state": args.seed, "device": args.device}
    return Codec(**{**given, **wishes, **args.wishes, "max_epochs": epochs}).fit(X)


class Bench:
    """One section of a run: the facts that its rows share, and how they are measured."""

    def __init__(self, section: str, book: Book, args: argparse.Namespace) -> None:
        self.section, self.book, self.args = section, book, args
        self.facts = {"seed": args.seed, "wishes": args.wishes, "versions": versions()}
        self.facts["threads"] = torch.get_num_threads()

    def add(self, data: str, X: Any, mode: str, method: str, row: Row) -> None:
        """Add a row; ``bits`` are per number in X."""
        items = X if isinstance(X, list) else [X]
        elements, nbytes = sum(x.size for x in items), sum(x.nbytes for x in items)
        size = {"elements": elements, "original": nbytes, "count": len(X)}
        bits = 8 * row["nbytes"] / elements
        found = {"section": self.section, "data": data, "mode": mode, "method": method}
        self.book.add({**found, **size, "bits": bits, **row, **self.facts})

    def others(
        self, data: str, X: Any, mode: str, rows: Sequence[TimedResult], **more: Any
    ) -> None:
        """Add the results of other coders on X."""
        for result in rows:
            row = asdict(result)
            self.add(data, X, mode, row.pop("name"), {**row, **more})

    def ours(self, data: str, X: Any, mode: str, method: str, codec: Codec, **how: Any) -> Row:
        """Compress, decompress and compare."""
        row = measure(codec, X, mode, **how)
        self.add(data, X, mode, method, row)
        return row

    def lossless(self, pair: Pair, codec: Codec) -> None:
        """The file with the autoencoder, the file without it, and other coders."""
        self.both(pair, codec, "lossless")
        rows = timed_lossless(pair.test, thorough=not self.args.quick)
        self.others(pair.name, pair.test, "lossless", rows)

    def both(self, pair: Pair, codec: Codec, mode: str, **how: Any) -> None:
        """With the autoencoder and with it switched off."""
        self.ours(pair.name, pair.test, mode, "narrows", codec, **how)
        name = "narrows, autoencoder off"
        self.ours(pair.name, pair.test, mode, name, codec, autoencoder=False, **how)

    def bounded(self, pair: Pair, codec: Codec, shares: Sequence[float]) -> None:
        """At each share of the range, the same absolute bound for all."""
        spread = float(pair.test.max()) - float(pair.test.min())
        for share in shares if spread > 0 else ():
            how = {"max_error": share * spread, "share": share}
            self.both(pair, codec, "bounded", **how)
            rows = timed_bounded(pair.test, share * spread)
            bound = share * spread
            self.others(pair.name, pair.test, "bounded", rows, share=share, bound=bound)

    def lossy(self, pair: Pair, pooled: bool, **wishes: Any) -> None:
        """Curves: every level of the codec, of PCA with the same coder, and of image coders.

        What only lossless coding needs is not learned; PCA has a table for each number, which is
        the best that it can have without learning.
        """
        wishes = {"context": False, **wishes}
        models = {
            "narrows": fit(pair.train, self.args, **wishes),
            "PCA, same coder": fit(pair.train, self.args, 0, **wishes, prior="factorised"),
        }
        for method, codec in models.items():
            for quality in range(-codec.decoder_.level, len(codec.levels_) - codec.decoder_.level):
                how = {"quality": quality, "pooled": pooled}
                self.ours(pair.name, pair.test, "lossy", method, codec, **how)
        for error in PLAIN_ERRORS:
            how = {"max_error": error, "autoencoder": False}
            row = measure(models["narrows"], pair.test, "bounded", pooled=pooled, **how)
            self.add(pair.name, pair.test, "lossy", "narrows, autoencoder off", row)
        for setting, result in image_curves(pair.test, pooled, self.args.quick):
            self.others(pair.name, pair.test, "lossy", [result], quality=setting)


def measure(
    codec: Codec,
    X: Any,
    mode: str,
    *,
    share: float | None = None,
    pooled: bool = True,
    **how: Any,
) -> Row:
    """Size, quality, times and where the bytes went; stops where the answer breaks its promise."""
    stream, start = io.BytesIO(), time.perf_counter()
    summary = codec.compress_to(stream, X, mode=mode, **how)
    middle = time.perf_counter()
    found = codec.decompress(stream.getvalue())
    end = time.perf_counter()
    worst = largest_error(X, found)
    allowed = {"lossless": 0.0, "lossy": np.inf}.get(mode, how.get("max_error", 0.0))
    if not worst <= allowed:
        raise SystemExit(f"{mode}: an error of {worst} where {allowed} is allowed")
    images, answers = images_of(X), images_of(found)
    psnr = None
    if images is not None and answers is not None and mode != "lossless":
        whole = ImageFiles("", images, images).fidelity(answers)[0]
        psnr = whole if pooled else mean_psnr(images, answers)
    return {
        "nbytes": len(stream.getvalue()),
        "psnr": psnr,
        "max_error": worst,
        "seconds": middle - start,
        "decode_seconds": end - middle,
        "code_bytes": summary.codes,
        "won": dict(summary.methods),
        "model_bytes": len(codec.payload_.data) if how.get("autoencoder", True) else 0,
        "fit_seconds": codec.fit_seconds_,
        "share": share,
        "bound": how.get("max_error"),
        "quality": how.get("quality"),
    }


def largest_error(X: Any, found: Any) -> float:
    """max |x − x'|, in the units of the data; infinite where shapes or types differ."""
    pairs = list(zip(X, found, strict=True)) if isinstance(X, list) else [(X, found)]
    if any(x.shape != y.shape or x.dtype != y.dtype for x, y in pairs):
        return float("inf")
    differences = (np.abs(x.astype(np.longdouble) - y.astype(np.longdouble)) for x, y in pairs)
    return max(float(difference.max(initial=0)) for difference in differences)


def mnist_lossless(bench: Bench, args: argparse.Namespace) -> None:
    pair = small_images("mnist", args.mnist, args.quick)
    bench.lossless(pair, fit(pair.train, args))


def mnist_lossy(bench: Bench, args: argparse.Namespace) -> None:
    bench.lossy(small_images("mnist", args.mnist, args.quick), True, rate=SMALL_RATE)


def fashion(bench: Bench, args: argparse.Namespace) -> None:
    pair = small_images("fashion-mnist", args.fashion, args.quick)
    bench.lossless(pair, fit(pair.train, args))
    bench.lossy(pair, True, rate=SMALL_RATE)


def photos(bench: Bench, args: argparse.Namespace) -> None:
    if args.train is not None and args.test is not None:
        grey = grey_photographs(args.train, args.test, args.quick)
        bench.lossy(grey, False, rate=GREY_RATE)
    bench.lossy(colour_photographs(args.quick), False, rate=COLOUR_RATE)


def climate(bench: Bench, args: argparse.Namespace) -> None:
    for pair in fields(args.fields, args.quick):
        codec = fit(pair.train, args)
        bench.bounded(pair, codec, BOUNDS)
        bench.lossless(pair, codec)


def rows_of_tables(bench: Bench, args: argparse.Namespace) -> None:
    for pair in tables(args.tables, args.quick):
        codec = fit(pair.train, args)
        bench.lossless(pair, codec)
        bench.bounded(pair, codec, BOUNDS[1:2])


def speed(bench: Bench, args: argparse.Namespace) -> None:
    """Best of three: a small set, a photograph of four million pixels, an array of 32 MiB."""
    from skimage.data import camera

    array, side = waves(args.quick), 256 if args.quick else 2048
    photograph = [np.ascontiguousarray(np.tile(camera(), (4, 4))[:side, :side])]
    digits = small_images("mnist", args.mnist, args.quick).test
    cases: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {
        "digits": (digits, {"lossy": {}, "lossless": {}}),
        "photograph": (photograph, {"lossy": {}, "lossless": {}}),
        "waves": (array, {"lossy": {}, "bounded": {"max_error": 1e-3 * float(np.ptp(array))}}),
    }
    for name, (X, modes) in cases.items():
        codec = fit(X, args, max_time=min(args.seconds, 20.0))  # how well it learned is no matter
        for mode, how in modes.items():
            every = [measure(codec, X, mode, **how) for _ in range(3)]
            times = {key: min(row[key] for row in every) for key in ("seconds", "decode_seconds")}
            bench.add(name, X, mode, "narrows", {**every[0], **times})
            if mode == "bounded":
                bench.others(name, X, mode, timed_bounded(X, how["max_error"]))
            if mode == "lossless":
                bench.others(name, X, mode, timed_lossless(X))


RUN = dict(
    zip(
        SECTIONS,
        (mnist_lossless, mnist_lossy, fashion, photos, climate, rows_of_tables, speed),
        strict=True,
    )
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=[*SECTIONS, "table"])
    parser.add_argument("--seconds", type=float, default=300.0, help="of learning, each model")
    parser.add_argument("--mnist", type=Path, help="folder of its IDX files")
    parser.add_argument("--fashion", type=Path, help="folder of its IDX files")
    parser.add_argument("--train", type=Path, help="folder of photographs to learn from")
    parser.add_argument("--test", type=Path, help="folder of photographs to compress")
    parser.add_argument("--fields", type=Path, nargs="+", default=[], help=".nc, .npy, .mat files")
    parser.add_argument("--tables", type=Path, nargs="+", default=[], help=".npz files with X")
    parser.add_argument("--wishes", type=json.loads, default={}, help="parameters of Codec, JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--quick", action="store_true", help="little data, into a temporary folder")
    args = parser.parse_args()
    if args.quick:
        args.seconds = min(args.seconds, 5.0)
        args.out = Path(tempfile.mkdtemp())
    return args


def main() -> None:
    """Run sections one after the other and write the tables again."""
    args = arguments()
    book = Book("compression", args.out)
    for section in args.only:
        if section != "table":
            RUN[section](Bench(section, book, args), args)
    write_table(book)
    print(f"written to {book.folder}")


if __name__ == "__main__":
    main()
