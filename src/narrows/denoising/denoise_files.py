"""Denoise files: one image or a folder, each written as it was stored, the damaged ones named."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from narrows import photographs
from narrows.denoising.image_quality import psnr
from narrows.exceptions import FileError, InputError

__all__ = [
    "Done",
    "Failed",
    "Outcome",
    "Restore",
    "Restored",
    "denoise_files",
    "restore_alone",
    "restore_with",
]


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """An image without its noise: ``pixels``, the ``noise`` found (white is 255), the seconds."""

    pixels: NDArray[Any]
    noise: float
    seconds: float


class Restore(Protocol):
    """What takes the noise from one image."""

    def __call__(self, pixels: NDArray[Any]) -> Restored:
        """(H, W) or (H, W, 3), uint8, uint16 or float32, to the same shape and dtype."""


@dataclass(frozen=True, slots=True)
class Done:
    """One file that was denoised.

    ``size`` is (height, width); ``noise`` the standard deviation found, white being 255; ``clean``
    the image it was measured by, and ``psnr`` that of the image given and of the restored one, in
    decibels, where there is one.
    """

    source: Path
    target: Path
    size: tuple[int, int]
    noise: float
    seconds: float
    clean: Path | None = None
    psnr: tuple[float, float] | None = None

    def __str__(self) -> str:
        height, width = self.size
        measured = "" if self.psnr is None else ", PSNR {:.2f} → {:.2f} dB".format(*self.psnr)
        return (
            f"{self.source}: {width} × {height}, noise {self.noise:.1f} of 255, "
            f"{self.seconds:.1f} s{measured} → {self.target}"
        )


@dataclass(frozen=True, slots=True)
class Failed:
    """One file that could not be denoised, and the sentence that says why."""

    source: Path
    why: str

    def __str__(self) -> str:
        return self.why if str(self.source) in self.why else f"'{self.source}': {self.why}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the files given."""

    done: list[Done] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


def denoise_files(
    given: str | Path,
    out: str | Path,
    restore: Restore,
    *,
    clean: str | Path | None = None,
    overwrite: bool = False,
    max_pixels: int = photographs.MAX_PIXELS,
    echo: Callable[[Done | Failed], object] = lambda item: None,
) -> Outcome:
    """Denoise an image or a folder of images into ``out``, each as it was stored.

    Parameters: ``given`` an image or a folder; ``out`` a file or a folder, as `photographs.plan`
    takes it; ``restore`` what takes the noise from one image; ``clean`` the same image without
    noise, or a folder of them under the same names, to measure by; ``overwrite`` whether files that
    exist are replaced; ``max_pixels`` the most an image may claim; ``echo`` hears of each file when
    it is done or has failed.

    A file that is damaged, too large or not fit for ``restore`` is among the failed ones, and the
    others go on; nothing is written half. Raises FileError and InputError, before anything is
    computed, where the files named make no sense, as `photographs.plan` says.

    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> noisy = photographs.Photograph(np.full((4, 5), 7, np.uint8))
    >>> path = photographs.write_photograph(noisy, folder.name + "/noisy.png")
    >>> half = lambda pixels: Restored(pixels // 2, noise=1.0, seconds=0.0)
    >>> denoise_files(path, folder.name + "/clean.png", half).done[0].size
    (4, 5)
    >>> int(photographs.read_photograph(folder.name + "/clean.png").pixels[0, 0])
    3
    >>> folder.cleanup()
    """
    pairs = photographs.plan(given, out, overwrite=overwrite)
    known = {} if clean is None else photographs.counterparts(pairs, given, clean)
    outcome = Outcome()
    for source, target in pairs:
        try:
            done = _denoise(source, target, restore, known.get(source), overwrite, max_pixels)
        except (InputError, FileError, MemoryError, RuntimeError) as error:
            failed = Failed(source, _why(error))
            outcome.failed.append(failed)
            echo(failed)
        else:
            outcome.done.append(done)
            echo(done)
    return outcome


def _why(error: Exception) -> str:
    """Why one file failed; what is no fault of the file is raised again."""
    if isinstance(error, InputError | FileError):
        return str(error)
    # torch's word for it is a RuntimeError
    if isinstance(error, RuntimeError) and "memory" not in str(error):
        raise error
    return "there is not enough memory for it."


def _denoise(
    source: Path,
    target: Path,
    restore: Restore,
    clean: Path | None,
    overwrite: bool,
    max_pixels: int,
) -> Done:
    photograph = photographs.read_photograph(source, max_pixels=max_pixels)
    photographs.check_can_hold(photograph, target)
    truth = None if clean is None else _clean(clean, photograph, max_pixels)
    restored = restore(photograph.pixels)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = photograph.with_pixels(restored.pixels)
    photographs.write_photograph(written, target, overwrite=overwrite)
    measured = None
    if truth is not None:
        measured = psnr(truth, photograph.pixels), psnr(truth, restored.pixels)
    height, width = photograph.pixels.shape[:2]
    return Done(source, target, (height, width), restored.noise, restored.seconds, clean, measured)


def _clean(path: Path, noisy: photographs.Photograph, max_pixels: int) -> NDArray[Any]:
    pixels = photographs.read_photograph(path, max_pixels=max_pixels).pixels
    stored, expected = (f"{p.dtype} of shape {p.shape}" for p in (pixels, noisy.pixels))
    if stored != expected:
        raise InputError(
            f"The clean image '{path}' is {stored}, and the noisy one {expected}: give the same "
            "image without the noise."
        )
    return pixels


def restore_with(denoiser: Any, noise_level: float | None = None) -> Restore:
    """Restore every image by one fitted denoiser.

    ``noise_level`` is the noise's standard deviation, white being 255; None finds it in the image.
    """

    def restore(pixels: NDArray[Any]) -> Restored:
        start = time.perf_counter()
        noise = denoiser.estimate_noise(pixels) if noise_level is None else noise_level
        clean = denoiser.denoise(pixels, noise_level=noise_level)
        return Restored(clean, float(noise), time.perf_counter() - start)

    return restore


def restore_alone(make: Callable[[], Any], noise_level: float | None = None) -> Restore:
    """Restore every image by a denoiser of its own, which learns from that image alone.

    ``make`` gives a new denoiser that is not fitted, and that has been told the level of the noise
    where ``noise_level`` tells it. An image without noise stays as it is. Ctrl-C while it learns is
    raised again: nothing is written then, and no other image is begun.
    """

    def restore(pixels: NDArray[Any]) -> Restored:
        start = time.perf_counter()
        denoiser = make()
        noise = denoiser.estimate_noise(pixels) if noise_level is None else noise_level
        if not noise:  # there is nothing to learn
            return Restored(pixels, 0.0, time.perf_counter() - start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said below, and it ends the work
            denoiser.fit([pixels])
        if denoiser.stop_reason_ == "interrupted":
            raise KeyboardInterrupt  # one who stops one image means all of them
        if denoiser.best_epoch_ == 0:
            raise InputError("nothing was learned in the time given: allow more (--max-time).")
        clean = denoiser.denoise(pixels)
        return Restored(clean, float(noise), time.perf_counter() - start)

    return restore
