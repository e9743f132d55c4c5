"""The Denoiser and all that only it needs; other rooms import only the names in ``__all__``.

A name is imported when it is first used: torch and scikit-image take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.denoising.compare_filters import (
        FILTERS,
        Cleaned,
        check_filters_installed,
        compare_cleaning,
        run_filters,
    )
    from narrows.denoising.denoise_folder import (
        DenoisedFile,
        DenoisePixels,
        FailedFile,
        by_fit_to_each,
        by_fitted_model,
        denoise_files,
    )
    from narrows.denoising.denoiser import Denoiser, fit_summary
    from narrows.denoising.denoising_page import DenoisedImage, compare_files, write_comparison
    from narrows.denoising.image_quality import psnr, ssim

__all__ = [
    "FILTERS",
    "Cleaned",
    "DenoisePixels",
    "DenoisedFile",
    "DenoisedImage",
    "Denoiser",
    "FailedFile",
    "by_fit_to_each",
    "by_fitted_model",
    "check_filters_installed",
    "compare_cleaning",
    "compare_files",
    "denoise_files",
    "fit_summary",
    "psnr",
    "run_filters",
    "ssim",
    "write_comparison",
]

FILES = {
    "compare_filters": "FILTERS Cleaned check_filters_installed compare_cleaning run_filters",
    "denoise_folder": "DenoisePixels DenoisedFile FailedFile by_fit_to_each by_fitted_model "
    "denoise_files",
    "denoiser": "Denoiser fit_summary",
    "denoising_page": "DenoisedImage compare_files write_comparison",
    "image_quality": "psnr ssim",
}


def __getattr__(name: str) -> Any:
    for file, names in FILES.items():
        if name in names.split():
            return getattr(import_module(f"narrows.denoising.{file}"), name)
    raise AttributeError(f"module 'narrows.denoising' has no attribute {name!r}")
