"""Other coders with their times, and curves of image coders; the coders are those of narrows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.other_coders import (
    REFUSALS,
    CoderResult,
    Data,
    ImageFiles,
    OtherCoder,
    available,
    bounded_result,
    byte_orders,
    code,
    image_files,
    items_of,
    lossy_coders,
)

Array = NDArray[Any]
MAX_IMAGES = 2000  # of more images, a sample is coded, one file per image
CURVE_IMAGES = 500  # the same at each of several settings
CURVE_POINTS = 9


@dataclass(frozen=True)
class TimedResult(CoderResult):
    """A result with the seconds to encode and to decode all the data."""

    seconds: float
    decode_seconds: float


class Stopwatch:
    """A coder that adds up its seconds."""

    def __init__(self, coder: OtherCoder) -> None:
        self.seconds = self.decode_seconds = 0.0
        self._timed = coder
        self.coder = replace(coder, encode=self._encode, decode=self._decode)

    def _encode(self, data: Any, setting: float) -> bytes:
        start = time.perf_counter()
        packed = self._timed.encode(data, setting)
        self.seconds += time.perf_counter() - start
        return packed

    def _decode(self, packed: bytes, like: Any) -> Any:
        start = time.perf_counter()
        decoded = self._timed.decode(packed, like)
        self.decode_seconds += time.perf_counter() - start
        return decoded

    def result(self, result: CoderResult, more: float = 1.0) -> TimedResult:
        """A result with the times so far, scaled up from a sample."""
        return TimedResult(
            **asdict(result), seconds=more * self.seconds, decode_seconds=more * self.decode_seconds
        )


def timed_lossless(data: Data, thorough: bool = False) -> list[TimedResult]:
    """Each lossless coder; ``thorough``: JPEG XL and WebP with their slowest settings."""
    results, items = [], items_of(data)
    for coder in available("bytes"):
        for order, content in zip(("", ", bytes by place"), byte_orders(items), strict=False):
            watch = Stopwatch(coder)
            nbytes, _ = code(watch.coder, [content])
            results.append(watch.result(CoderResult(f"{coder.name}{order}", nbytes, None, 0.0)))
    for coder in available("lossless"):
        for form in image_files(data, MAX_IMAGES):
            watch = Stopwatch(slowest(coder) if thorough else coder)
            try:
                nbytes, decoded = code(watch.coder, form.files)
            except REFUSALS:
                continue
            if form.fidelity(decoded)[1] > 0:
                raise SystemExit(f"{coder.name} is not lossless")
            results.append(watch.result(form.result(coder.name, nbytes, None, 0.0), form.more))
    return sorted(results, key=lambda result: result.nbytes)


def slowest(coder: OtherCoder) -> OtherCoder:
    """A lossless coder with its slowest setting, if it has several."""
    if coder.name == "WebP":
        return replace(coder, encode=partial(coder.encode, quality=100, method=6))
    if coder.name == "JPEG XL":
        return replace(coder, encode=partial(coder.encode, effort=9))
    return coder


def timed_bounded(data: Data, error: float) -> list[TimedResult]:
    """Each coder within a largest error; of SPERR's two ways the smaller."""
    found: dict[str, TimedResult] = {}
    for coder in available("bounded"):
        watch = Stopwatch(coder)
        try:
            result = watch.result(bounded_result(watch.coder, items_of(data), error))
        except REFUSALS:
            continue
        if result.name not in found or result.nbytes < found[result.name].nbytes:
            found[result.name] = result
    return sorted(found.values(), key=lambda result: result.nbytes)


def image_curves(data: Data, pooled: bool, quick: bool) -> Iterator[tuple[float, TimedResult]]:
    """Settings, and what each image coder makes of the images there."""
    for form in image_files(data, 50 if quick else CURVE_IMAGES):
        for coder in lossy_coders(form.images):
            last, points = len(coder.settings) - 1, 3 if quick else CURVE_POINTS
            settings = [coder.settings[round(last * i / points)] for i in range(points)]
            try:
                for setting in settings:
                    watch = Stopwatch(coder)
                    nbytes, decoded = code(watch.coder, form.files, setting)
                    psnr, worst = form.fidelity(decoded)
                    psnr = psnr if pooled else mean_psnr(form.images, decoded)
                    result = form.result(coder.name, nbytes, psnr, worst)
                    yield setting, watch.result(result, form.more)
            except REFUSALS:
                continue


def mean_psnr(images: list[Array], decoded: list[Array]) -> float:
    """The mean of the images' own PSNRs, as articles about photographs give it."""
    each = zip(images, decoded, strict=True)
    return float(np.mean([ImageFiles("", [x], [x]).fidelity([y])[0] for x, y in each]))
