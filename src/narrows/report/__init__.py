"""Reports: the results of a fitted model on one HTML page, with PCA's next to them.

- `write_report` makes the page of any fitted estimator; `run_demo` fits four models on real data
  and writes a page for each and one for all;
- `measured_rows`: which rows of the data a fit has held out;
- `linear_probe`: the accuracy of a linear classifier on the codes, on PCA's codes and on raw data;
- `code_map`, `decoded_grid`, `interpolate`: the codes in the plane, and paths between them;
- `code_effects`, `traverse`, `attribute_directions`: what each number of the code does, and which
  way leads to a class.
"""

from narrows.report.demo import run_demo
from narrows.report.manifold import (
    CodeMap,
    DecodedGrid,
    Traversal,
    attribute_directions,
    code_effects,
    code_map,
    decoded_grid,
    interpolate,
    traverse,
)
from narrows.report.measures import Measured, measured_rows
from narrows.report.model_report import write_report
from narrows.report.probe import Probe, linear_probe, probe_features

__all__ = [
    "CodeMap",
    "DecodedGrid",
    "Measured",
    "Probe",
    "Traversal",
    "attribute_directions",
    "code_effects",
    "code_map",
    "decoded_grid",
    "interpolate",
    "linear_probe",
    "measured_rows",
    "probe_features",
    "run_demo",
    "traverse",
    "write_report",
]
