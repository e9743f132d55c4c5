"""Plots for notebooks and papers: matplotlib Displays with the interface of scikit-learn's.

The names in ``__all__`` are loaded when they are first used: matplotlib and torch take seconds to
import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.plot.displays import (
        CompareDisplay,
        LatentDisplay,
        ReconstructionDisplay,
        TraversalDisplay,
    )

__all__ = ["CompareDisplay", "LatentDisplay", "ReconstructionDisplay", "TraversalDisplay"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in __all__:
        return getattr(import_module(f"{__name__}.displays"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
