"""What a fitted model is worth, on one page: pictures first, figures beside PCA's, all by itself.

- `write_report` makes the page for any fitted estimator; `run_demo` fits four models on real data
  and writes a page about each and one about all;
- `linear_probe`: how well a linear classifier reads the codes, beside PCA's codes and the raw data;
- `code_map`, `decoded_grid`, `interpolate`: the codes laid out in the plane, and walks among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.report.demo import run_demo
    from narrows.report.manifold import CodeMap, DecodedGrid, code_map, decoded_grid, interpolate
    from narrows.report.model_report import write_report
    from narrows.report.probe import Probe, linear_probe, probe_features

__all__ = [
    "CodeMap",
    "DecodedGrid",
    "Probe",
    "code_map",
    "decoded_grid",
    "interpolate",
    "linear_probe",
    "probe_features",
    "run_demo",
    "write_report",
]

_MODULES = {"run_demo": "demo", "write_report": "model_report"}
_MODULES |= dict.fromkeys(("Probe", "linear_probe", "probe_features"), "probe")


def __getattr__(name: str) -> Any:
    """Import a function when it is first used, so that the command starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'manifold')}"), name)
