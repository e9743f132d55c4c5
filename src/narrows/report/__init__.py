"""What a fitted model is worth, on one page: pictures first, figures beside PCA's, all by itself.

`write_report` makes the page for any fitted estimator; `run_demo` fits four models on real data
and leaves a page about each and one about all. `write_comparison` makes the page of denoised
images, with the classical filters' beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.report.comparison import Entry, run_filters, write_comparison
    from narrows.report.demo import run_demo
    from narrows.report.write import write_report

__all__ = ["Entry", "run_demo", "run_filters", "write_comparison", "write_report"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then, so that the command starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = {"run_demo": "demo", "write_report": "write"}.get(name, "comparison")
    return getattr(import_module(f"{__name__}.{home}"), name)
