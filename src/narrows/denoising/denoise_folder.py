"""Denoise image files: one, or all of a folder. What each was stored as is kept."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from narrows.denoising.image_quality import psnr
from narrows.exceptions import FileError, InputError
from narrows.io import photographs

if TYPE_CHECKING:
    from narrows.denoising.denoiser import Denoiser

Pixels = NDArray[Any]
# (H, W) or (H, W, 3), uint8, uint16 or float32, to pixels of the same shape and dtype, and the
# standard deviation of their noise, white being 255
DenoisePixels = Callable[[Pixels], tuple[Pixels, float]]


@dataclass(frozen=True, slots=True)
class DenoisedFile:
    """One file that was denoised.

    ``size`` is (height, width); ``noise`` the standard deviation of the noise, white being 255;
    ``clean`` the file of the clean image, and ``psnr`` the PSNR of the noisy and of the denoised
    image in decibels, if a clean one was given.
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
class FailedFile:
    """One file that could not be denoised, and the message that says why."""

    source: Path
    why: str

    def __str__(self) -> str:
        return self.why if str(self.source) in self.why else f"'{self.source}': {self.why}"


class Outcome(NamedTuple):
    """The files that were denoised, and those that could not be."""

    done: list[DenoisedFile]
    failed: list[FailedFile]


def denoise_files(
    given: str | Path,
    out: str | Path,
    denoise: DenoisePixels,
    *,
    clean: str | Path | None = None,
    overwrite: bool = False,
    max_pixels: int = photographs.MAX_PIXELS,
    echo: Callable[[DenoisedFile | FailedFile], object] = lambda item: None,
) -> Outcome:
    """Denoise an image or a folder of images into ``out``, each stored as it was.

    A file that is damaged, too large or not fit for ``denoise`` is reported as failed, and the
    others are still denoised; no file is written in part.

    Parameters
    ----------
    given : str or Path
        An image or a folder.
    out : str or Path
        A file or a folder, as `photographs.plan` takes it.
    denoise : callable
        Denoises one image: `by_fitted_model` or `by_fit_to_each`.
    clean : str or Path, optional
        The same image without noise, or a folder of them under the same names, to measure by.
    overwrite : bool
        Replace files that exist.
    max_pixels : int
        Refuse images with more pixels.
    echo : callable
        Called with each file as soon as it is denoised or has failed.

    Raises
    ------
    FileError, InputError
        The files cannot be read or written as asked (see `photographs.plan`); nothing was denoised.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> noisy = photographs.Photograph(np.full((4, 5), 7, np.uint8))
    >>> path = photographs.write_photograph(noisy, folder.name + "/noisy.png")
    >>> half = lambda pixels: (pixels // 2, 1.0)
    >>> denoise_files(path, folder.name + "/clean.png", half).done[0].size
    (4, 5)
    >>> int(photographs.read_photograph(folder.name + "/clean.png").pixels[0, 0])
    3
    >>> folder.cleanup()
    """
    pairs = photographs.plan(given, out, overwrite=overwrite)
    clean_files = {} if clean is None else photographs.counterparts(pairs, given, clean)
    outcome = Outcome([], [])

    def denoise_file(source: Path, target: Path) -> DenoisedFile:
        photograph = photographs.read_photograph(source, max_pixels=max_pixels)
        photographs.check_can_hold(photograph, target)
        noisy, clean_file = photograph.pixels, clean_files.get(source)
        if clean_file is not None:
            truth = photographs.read_photograph(clean_file, max_pixels=max_pixels).pixels
            before = psnr(truth, noisy)  # raises if the clean image has another shape or dtype
        start = time.perf_counter()
        denoised, noise = denoise(noisy)
        seconds = time.perf_counter() - start
        target.parent.mkdir(parents=True, exist_ok=True)
        photographs.write_photograph(photograph.with_pixels(denoised), target, overwrite=overwrite)
        size = noisy.shape[0], noisy.shape[1]
        measured = None if clean_file is None else (before, psnr(truth, denoised))
        return DenoisedFile(source, target, size, noise, seconds, clean_file, measured)

    for source, target in pairs:
        try:
            done = denoise_file(source, target)
        except (InputError, FileError, OSError, MemoryError, RuntimeError) as error:
            failed = FailedFile(source, _reason(error))
            outcome.failed.append(failed)
            echo(failed)
        else:
            outcome.done.append(done)
            echo(done)
    return outcome


def _reason(error: Exception) -> str:
    """Why a file failed; an error that is not the file's fault is raised again."""
    if isinstance(error, InputError | FileError):
        return str(error)
    if isinstance(error, OSError):
        return f"it cannot be written: {error.strerror or error}."
    # torch raises a RuntimeError when memory runs out
    if isinstance(error, RuntimeError) and "memory" not in str(error):
        raise error
    return "there is not enough memory for it."


def by_fitted_model(denoiser: Denoiser, noise_level: float | None = None) -> DenoisePixels:
    """Denoise every image with one fitted denoiser.

    ``noise_level`` is the noise's standard deviation, white being 255; None estimates it in each
    image.
    """

    def denoise(pixels: Pixels) -> tuple[Pixels, float]:
        noise = denoiser.estimate_noise(pixels) if noise_level is None else noise_level
        return denoiser.denoise(pixels, noise_level=noise_level), float(noise)

    return denoise


def by_fit_to_each(make: Callable[[], Denoiser], noise_level: float | None = None) -> DenoisePixels:
    """Denoise every image with a denoiser that is fitted to this image alone.

    ``make`` gives a new denoiser that is not fitted; if ``noise_level`` is given, with that level.
    An image without noise stays as it is. Ctrl-C during a fit is raised again as KeyboardInterrupt:
    the image is not written, and no further image is begun.
    """

    def denoise(pixels: Pixels) -> tuple[Pixels, float]:
        denoiser = make()
        noise = denoiser.estimate_noise(pixels) if noise_level is None else noise_level
        if not noise:
            return pixels, 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that nothing was learned is raised below
            denoiser.fit([pixels])
        if denoiser.stop_reason_ == "interrupted":
            raise KeyboardInterrupt
        if denoiser.best_epoch_ == 0:
            raise InputError("nothing was learned in the time given: allow more (--max-time).")
        return denoiser.denoise(pixels), float(noise)

    return denoise
