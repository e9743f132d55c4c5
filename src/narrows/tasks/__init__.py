"""What people do with a fitted model, on its public interface alone.

- `linear_probe`: how well a linear classifier reads the codes, beside PCA's codes and the raw data;
- `compare_cleaning`: what is left of noise, beside doing nothing, PCA and filters;
- `code_map`, `decoded_grid`, `interpolate`: the codes laid out in the plane, and walks among them;
- `psnr`, `ssim`: how near an image is to the clean one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.tasks.cleaning import Cleaned, compare_cleaning
    from narrows.tasks.manifold import CodeMap, DecodedGrid, code_map, decoded_grid, interpolate
    from narrows.tasks.quality import psnr, ssim
    from narrows.tasks.represent import Probe, linear_probe, probe_features

__all__ = [
    "Cleaned",
    "CodeMap",
    "DecodedGrid",
    "Probe",
    "code_map",
    "compare_cleaning",
    "decoded_grid",
    "interpolate",
    "linear_probe",
    "probe_features",
    "psnr",
    "ssim",
]

_HOME = dict.fromkeys(("Probe", "linear_probe", "probe_features"), "represent")
_HOME |= {"psnr": "quality", "ssim": "quality"}
_HOME |= dict.fromkeys(("Cleaned", "compare_cleaning"), "cleaning")


def __getattr__(name: str) -> Any:
    """Import a task when it is first asked for, so that the command starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'manifold')}"), name)
