"""How close an image is to the clean one: PSNR and SSIM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import white_and_doubt
from narrows.io.sources import unmasked

if TYPE_CHECKING:
    from numpy.typing import NDArray

SSIM_WINDOW = 11  # pixels; the Gaussian of 1.5 pixels is cut off there


def import_optional(module: str, what: str) -> Any:
    """A module that the extra "denoise" installs; ``what`` needs it, says the error.

    Raises `ParameterError` if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = "PyWavelets" if module == "pywt" else "scikit-image"
        raise ParameterError(
            f"{what} needs {package}, which is not installed; run pip install 'narrows[denoise]'."
        ) from None


def check_pixels(image: NDArray[Any], name: str) -> None:
    """Raise InputError if an array is no image (H, W) or (H, W, 3) of finite numbers.

    ``name`` is what the message calls it.
    """
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        expected = "(height, width) or (height, width, 3)"
        raise InputError(f"{name} has shape {image.shape}; give one image, {expected}.")
    if not np.isfinite(unmasked(image)).all():
        raise InputError(f"{name} contains NaN or infinity; replace these pixels.")


def white_value(image: NDArray[Any]) -> float:
    """The value of white: 255 or 65,535 of 8 or 16 bits; of floats as `white_and_doubt` finds it.

    Raises `InputError` for another dtype.

    >>> white_value(np.zeros((2, 2), np.uint16)), white_value(np.zeros((2, 2), np.float32))
    (65535.0, 1.0)
    """
    if image.dtype in (np.uint8, np.uint16) or image.dtype.kind == "f":
        return white_and_doubt(image)[0]
    raise InputError(
        f"An image of {image.dtype} has no known value of white; give uint8, uint16 or floats."
    )


def psnr(clean: NDArray[Any], image: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10(white² / mean((clean − image)²)).

    Parameters: ``clean`` and ``image``, arrays of one shape and dtype; white is that of the
    clean image. Equal images give infinity. Raises `InputError` if shapes or dtypes differ.

    >>> psnr(np.full((4, 4), 100, np.uint8), np.full((4, 4), 125, np.uint8))
    20.1720...
    """
    clean, image = _check_pair(clean, image)
    white = white_value(clean)
    mse = float(np.mean(np.square(np.subtract(clean, image, dtype=np.float64))))
    return float("inf") if mse == 0 else 10 * float(np.log10(white**2 / mse))


def ssim(clean: NDArray[Any], image: NDArray[Any]) -> float | None:
    """Structural similarity, 1 for equal images (Wang et al. 2004), by scikit-image.

    The mean over all windows that lie within the image, 11 × 11 pixels with Gaussian weights of
    1.5 pixels; over the channels of colour. Small images get the largest odd window that fits;
    an image with a side below 3 pixels has none: None.

    Parameters: ``clean`` and ``image``, (H, W) or (H, W, 3), of one shape and dtype. Raises
    `InputError` if these differ, `ParameterError` if scikit-image is not installed.

    >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
    >>> ssim(image, image)
    1.0
    """
    clean, image = _check_pair(clean, image)
    side = min(clean.shape[:2])
    if side < 3:
        return None
    similarity = import_optional("skimage.metrics", "SSIM").structural_similarity
    return float(similarity(
        clean, image, win_size=min(SSIM_WINDOW, side - 1 + side % 2), gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, data_range=white_value(clean),
        channel_axis=None if clean.ndim == 2 else -1,
    ))  # fmt: skip


def _check_pair(clean: NDArray[Any], image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    clean, image = np.asarray(unmasked(clean)), np.asarray(unmasked(image))
    if clean.shape != image.shape or clean.dtype != image.dtype:
        raise InputError(
            f"The clean image has shape {clean.shape} and dtype {clean.dtype}, the other "
            f"{image.shape} and {image.dtype}; give both in one shape and dtype."
        )
    return clean, image
