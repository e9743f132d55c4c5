"""Reports: the results of a fitted model on one HTML page, with PCA's next to them.

- `write_report` makes the page of any fitted estimator; `run_demo` fits four models on real data
  and writes a page for each and one for all;
- `linear_probe`: the accuracy of a linear classifier on the codes, on PCA's codes and on raw data;
- `code_map`, `decoded_grid`, `interpolate`: the codes in the plane, and paths between them.
"""

from __future__ import annotations

from importlib import import_module
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
    """Import a name at first use, so that the command starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'manifold')}"), name)
