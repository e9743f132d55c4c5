"""How near an image is to the clean one: PSNR and SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from narrows import photographs
from narrows.exceptions import InputError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 11  # pixels; the Gaussian of 1.5 pixels is cut there


def white(image: NDArray[Any]) -> float:
    """The value of white: the largest of bytes or 16 bits; of floats 1, or 255 or 65,535.

    Raises `InputError` for another dtype.

    >>> white(np.zeros((2, 2), np.uint16)), white(np.zeros((2, 2), np.float32))
    (65535.0, 1.0)
    """
    if image.dtype in (np.uint8, np.uint16) or image.dtype.kind == "f":
        return photographs.white_of(image)
    raise InputError(
        f"An image of {image.dtype} has no value known to be white: give uint8, uint16 or floats."
    )


def psnr(clean: NDArray[Any], image: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10(white² / mean((clean − image)²)).

    Parameters: ``clean`` and ``image``, arrays of one shape and dtype; white is that of the
    clean image. Equal images give infinity. Raises `InputError` where shapes
    or dtypes differ.

    >>> psnr(np.full((4, 4), 100, np.uint8), np.full((4, 4), 125, np.uint8))
    20.1720...
    """
    clean, image = _alike(clean, image)
    top = white(clean)
    error = float(np.mean(np.square(np.subtract(clean, image, dtype=np.float64))))
    return float("inf") if error == 0 else 10 * float(np.log10(top**2 / error))


def ssim(clean: NDArray[Any], image: NDArray[Any]) -> float | None:
    """Structural similarity, 1 for equal images (Wang et al. 2004), by scikit-image.

    The mean over all windows that lie within the image, 11 × 11 pixels with Gaussian weights of
    1.5 pixels; over the channels of colour. Small images get the largest odd window that fits;
    an image with a side below 3 pixels has none: None.

    Parameters: ``clean`` and ``image``, (H, W) or (H, W, 3), of one shape and dtype. Raises
    `InputError` where these differ, `ParameterError` where scikit-image is not installed.

    >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
    >>> ssim(image, image)
    1.0
    """
    clean, image = _alike(clean, image)
    side = min(clean.shape[:2])
    if side < 3:
        return None
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise ParameterError(
            "SSIM needs scikit-image, which is not installed; run pip install 'narrows[denoise]'."
        ) from None
    return float(structural_similarity(
        clean, image, win_size=min(WINDOW, side - 1 + side % 2), gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=white(clean),
        channel_axis=None if clean.ndim == 2 else -1,
    ))  # fmt: skip


def _alike(clean: NDArray[Any], image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    clean, image = np.asarray(clean), np.asarray(image)
    if clean.shape != image.shape or clean.dtype != image.dtype:
        raise InputError(
            f"The clean image has shape {clean.shape} and dtype {clean.dtype}, the other "
            f"{image.shape} and {image.dtype}: bring both to one shape and dtype."
        )
    return clean, image
