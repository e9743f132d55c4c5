"""Reports: the results of a fitted model on one HTML page, with PCA's next to them.

- `write_report` makes the page of any fitted estimator; `run_demo` fits four models on real data
  and writes a page for each and one for all;
- `measured_rows`: which rows of the data a fit has held out;
- `linear_probe`: the accuracy of a linear classifier on the codes, on PCA's codes and on raw data;
- `code_map`, `decoded_grid`, `interpolate`: the codes in the plane, and paths between them.
"""

from narrows.report.demo import run_demo
from narrows.report.manifold import CodeMap, DecodedGrid, code_map, decoded_grid, interpolate
from narrows.report.measures import Measured, measured_rows
from narrows.report.model_report import write_report
from narrows.report.probe import Probe, linear_probe, probe_features

__all__ = [
    "CodeMap",
    "DecodedGrid",
    "Measured",
    "Probe",
    "code_map",
    "decoded_grid",
    "interpolate",
    "linear_probe",
    "measured_rows",
    "probe_features",
    "run_demo",
    "write_report",
]
